"""scripts/predict.py: what it reads, what it writes, and mistakes. The networks are small ones in ONNX."""

import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from paths import TEMPLATE
from scripts.predict import main
from src.kit import predictions_scenes
from src.kit.catalog import build_dataset
from src.kit.config import load_config
from src.kit.errors import UserError
from src.kit.inference import Card
from src.kit.predictions import Results, name_once


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


COLOURS = {"red": (220, 30, 30), "green": (30, 220, 30), "blue": (30, 30, 220)}


def export(folder: Path, maps: bool = False, classes: tuple[str, ...] = tuple(COLOURS)) -> Path:
    """A network that tells the colour of an image, or of each pixel: logits are the channels times 9."""
    make = onnx.helper
    kinds = [make.make_tensor_value_info(name, 1, None) for name in "xy"]
    kinds[0] = make.make_tensor_value_info("x", 1, ["batch", 3, 32, 32])
    nine = onnx.numpy_helper.from_array(np.float32([9]), "nine")
    nodes = [make.make_node("Mul", ["x", "nine"], ["y" if maps else "z"])]
    if not maps:
        axes = onnx.numpy_helper.from_array(np.int64([2, 3]), "axes")
        nodes.append(make.make_node("ReduceMean", ["z", "axes"], ["y"], keepdims=0))
    graph = make.make_graph(nodes, "g", kinds[:1], kinds[1:], [nine] if maps else [nine, axes])
    folder.mkdir()
    onnx.save(make.make_model(graph, opset_imports=[make.make_opsetid("", 20)], ir_version=10), folder / "model.onnx")
    inputs = {"shape": [3, 32, 32], "mean": [0.0] * 3, "std": [1.0] * 3, "flippable": True}
    kind, output = ("scenes", "class_map") if maps else ("images", "classes")
    Card("colours", kind, classes, inputs, {"kind": output}, model="tints").write(folder)
    return folder


def paint(path: Path, colour: str, size: tuple[int, int] = (60, 40)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, COLOURS[colour]).save(path)
    return path


def read(folder: Path) -> list[tuple[str, ...]]:
    """The rows of predictions.csv: file name, class, and the rest."""
    with (folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return [(Path(row["file"]).name, row["class"]) for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return export(tmp_path_factory.mktemp("networks") / "export")


@pytest.fixture
def photos(tmp_path):
    paint(tmp_path / "photos" / "a.png", "red")
    paint(tmp_path / "photos" / "deep" / "b.jpg", "green")
    paint(tmp_path / "photos" / "deep" / "a.webp", "blue")
    return tmp_path / "photos"


def test_a_folder_is_labelled(network, photos, tmp_path, capsys):
    main([str(network), str(photos), "--out", str(tmp_path / "out")])
    out = tmp_path / "out"
    assert read(out) == [("a.png", "red"), ("a.webp", "blue"), ("b.jpg", "green")]
    assert (out / "predictions.csv").read_text("utf-8").startswith("file,class,score\n")
    records = json.loads((out / "predictions.json").read_text("utf-8"))
    assert [each["class"] for each in records] == ["red", "blue", "green"]
    assert records[0]["file"] == (photos / "a.png").as_posix()
    assert sum(records[0]["scores"].values()) == pytest.approx(1)
    assert {path.name for path in (out / "pictures").iterdir()} == {"a.jpg", "a-2.jpg", "b.jpg"}
    page = (out / "index.html").read_text("utf-8")
    assert page.count("<figure>") == 3
    assert "a.webp" in page
    assert json.loads((out / "about.json").read_text("utf-8"))["predicted"] == 3
    assert "predictions.csv" in capsys.readouterr().out
    assert not list(out.rglob(".*"))


def test_without_out_results_go_to_outputs(network, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main([str(network), "photos/*.png", "photos/deep/**/*.jpg", "--pictures", "0", "--batch", "1"])
    (out,) = (tmp_path / "outputs").iterdir()
    assert out.name.startswith("predictions-")
    assert read(out) == [("a.png", "red"), ("b.jpg", "green")]
    assert not (out / "pictures").exists()


def test_a_list_of_files_and_a_video(network, photos, tmp_path):
    import cv2

    listed = tmp_path / "photos" / "list.csv"
    listed.write_text("id;File\n1;deep/b.jpg\n2;a.png\n", "utf-8")  # as Excel writes it in much of Europe
    video = cv2.VideoWriter(str(tmp_path / "clip.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 48))
    for colour in ("red", "red", "red", "blue", "blue"):
        video.write(np.full((48, 64, 3), COLOURS[colour][::-1], np.uint8))
    video.release()
    main([str(network), str(listed), str(tmp_path / "clip.mp4"), "--every", "2", "--out", str(tmp_path / "out")])
    expected = [
        ("b.jpg", "green"),
        ("a.png", "red"),
        ("clip.mp4#0", "red"),
        ("clip.mp4#2", "red"),
        ("clip.mp4#4", "blue"),
    ]
    assert read(tmp_path / "out") == expected
    assert (tmp_path / "out" / "pictures" / "clip.mp4-frame-4.jpg").exists()


@pytest.mark.parametrize(
    ("name", "own"),
    [("in/a#1.jpg", "a#1"), ("in#2/a.tar.png", "a.tar"), ("v#1.mp4#3", "v#1.mp4-frame-3"), ("A#1.png", "A#1-2")],
)
def test_only_frames_of_videos_are_called_so(name, own):
    assert name_once(name, {"a#1"} if name[0] == "A" else set()) == own


def test_a_damaged_file_does_not_stop_the_others(network, photos, tmp_path, capsys):
    (photos / "broken.png").write_bytes(b"nothing")
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    main([str(network), str(tmp_path / "broken.mp4"), str(photos), "--out", str(tmp_path / "out"), "--batch", "2"])
    assert len(read(tmp_path / "out")) == 3
    assert "2 could not be read" in capsys.readouterr().err
    page = (tmp_path / "out" / "index.html").read_text("utf-8")
    assert "broken.png" in page
    assert all(f">{name}</span>" in page for name in ("photos/a.png", "deep/a.webp"))  # equal names are told apart
    with pytest.raises(UserError, match=r"None of the files could be read:\n  Cannot decode .*broken\.png"):
        main([str(network), str(photos / "broken.png"), "--out", str(tmp_path / "none")])
    assert not (tmp_path / "none").exists()


def test_an_interruption_leaves_what_is_done(network, photos, tmp_path, monkeypatch):
    from src.kit.inference import Predictor

    original = Predictor.predict_items

    def interrupt(self, items):
        if (tmp_path / "out" / "predictions.csv").stat().st_size > 40:
            raise KeyboardInterrupt
        return original(self, items)

    monkeypatch.setattr(Predictor, "predict_items", interrupt)
    with pytest.raises(KeyboardInterrupt):
        main([str(network), str(photos), "--out", str(tmp_path / "out"), "--batch", "1"])
    assert read(tmp_path / "out") == [("a.png", "red")]
    assert len(json.loads((tmp_path / "out" / "predictions.json").read_text("utf-8"))) == 1
    assert (tmp_path / "out" / "index.html").exists()


def test_several_networks_and_views(network, photos, tmp_path):
    other = export(tmp_path / "other")
    main([str(network), str(other / "model.onnx"), str(photos), "--tta", "--out", str(tmp_path / "out")])
    assert read(tmp_path / "out") == [("a.png", "red"), ("a.webp", "blue"), ("b.jpg", "green")]
    assert len(json.loads((tmp_path / "out" / "about.json").read_text("utf-8"))["networks"]) == 2


ALONE = """
import sys

class Missing:
    def find_spec(self, name, *rest):
        if name.partition(".")[0] in ("torch", "torchvision", "pytorch_lightning", "paddle"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
from scripts.predict import main
main(sys.argv[1:])
"""


def test_an_export_needs_no_framework(network, photos, tmp_path):
    command = [sys.executable, "-c", ALONE, str(network), str(photos), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=TEMPLATE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(read(tmp_path / "out")) == 3


def test_class_maps_are_palette_images(tmp_path):
    network = export(tmp_path / "maps", maps=True)
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, :20], image[:, 20:] = COLOURS["red"], COLOURS["blue"]
    Image.fromarray(image).save(tmp_path / "flag.png")
    main([str(network), str(tmp_path / "flag.png"), "--tile", "auto", "--out", str(tmp_path / "out")])
    out = tmp_path / "out"
    assert read(out) == [("flag.png", "blue"), ("flag.png", "red")]
    with Image.open(out / "maps" / "flag.png") as picture:
        assert picture.mode == "P"
        expected = np.where(image[..., 0] > 128, 0, 2)
        assert (np.asarray(picture) != expected).mean() < 0.02, "tiles blur the edge"
    assert json.loads((out / "maps" / "classes.json").read_text("utf-8"))["2"] == "blue"
    rows = list(csv.DictReader((out / "predictions.csv").open(encoding="utf-8")))
    assert float(rows[0]["share"]) == pytest.approx(2 / 3, abs=0.02)
    assert rows[0]["map"] == "maps/flag.png"


def test_pictures_show_sure_objects_only(tmp_path):
    card = Card("objects", "scenes", ("cat", "dog"), {"shape": [3, 32, 32]}, {"kind": "boxes", "score": 0.0})
    scores = {"cat": 0.9, "dog": 0.1}
    found = [{"class": name, "score": score, "box": [2.0, 2.0, 20.0, 20.0]} for name, score in scores.items()]
    with predictions_scenes.Results(tmp_path, card, 1) as results:
        results.add("a.png", np.zeros((40, 60, 3), np.uint8), {"objects": found})
    page = (tmp_path / "index.html").read_text("utf-8")
    assert "<b>cat 90%</b><br>" in page
    assert [row[1] for row in read(tmp_path)] == ["cat", "dog"]
    assert len(json.loads((tmp_path / "coco_results.json").read_text("utf-8"))) == 2


def test_what_the_network_is_least_sure_of_joins_the_training_data(network, photos, tmp_path, monkeypatch):
    Image.new("RGB", (60, 40), (130, 120, 30)).save(photos / "deep" / "a.png")  # a second a.png, hardly red
    Image.new("RGB", (60, 40), (30, 130, 140)).save(photos / "c.png")
    out = tmp_path / "round-1"
    screen = Terminal()
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setattr("sys.stderr", screen)
    main([str(network), str(photos), "--out", str(out), "--label-next", "2"])
    shown = [line.rpartition("\r")[2] for line in screen.getvalue().splitlines(keepends=True)]
    assert [line.partition(":")[0] for line in shown[-3:]] == ["predictions", "page", "to label next"]
    chosen = out / "label_next"
    assert {path.relative_to(chosen).as_posix() for path in chosen.rglob("*.png")} == {
        "red/round-1/a.png",
        "blue/round-1/c.png",
    }
    assert (photos / "c.png").is_file(), "copied, not moved"

    training = tmp_path / "training"
    for colour in COLOURS:
        for number in range(4):
            paint(training / colour / f"{number}.png", colour)
    (chosen / "green" / "round-1").mkdir(parents=True)
    (chosen / "red" / "round-1" / "a.png").rename(chosen / "green" / "round-1" / "a.png")  # what a person corrects
    shutil.copytree(chosen, training, dirs_exist_ok=True)
    cfg = load_config(["data=image_folder", f"data.root={training.as_posix()}"])
    splits = [build_dataset(cfg, split) for split in ("train", "val", "test")]
    counts = sum(np.bincount(split.targets, minlength=3) for split in splits)
    assert dict(zip(splits[0].classes, counts, strict=True)) == {"blue": 5, "green": 5, "red": 4}


@pytest.mark.parametrize("name", ["../../up", "..", "a/b", ".hidden"])
def test_a_card_cannot_name_a_folder_outside(tmp_path, name):
    results = Results(tmp_path / "out", Card("colours", "images", (name,), {}, {}), 0)
    results.records = [{"file": paint(tmp_path / "a.png", "red").as_posix(), "class": name, "score": 0.5}]
    [copy] = results.label_next(1)
    assert copy.resolve().is_relative_to((tmp_path / "out" / "label_next").resolve())
    assert copy.parents[1].parent.name == "label_next"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["NETWORK"], "is a network: name files, folders or tables to predict after it"),
        (["nothing", "PHOTOS"], "nothing does not exist: give a run or an export, then what to predict"),
        (["NETWORK", "nothing"], "nothing does not exist: name image files, folders"),
        (["NETWORK", "*.nothing"], "does not exist: name image files, folders"),
        (["NETWORK", "pyproject.toml"], r"pyproject.toml is not an image \(.bmp"),
        (["NETWORK", "EMPTY"], "holds no images"),
        (["NETWORK", "PHOTOS", "--tile", "64"], "Tiles are for objects and class maps"),
        (["NETWORK", "PHOTOS", "--score", "0.5"], "--score is for objects"),
        (["MAPS", "PHOTOS", "--label-next", "5"], "--label-next is for classes of images, not for task=colours"),
        (["NETWORK", "PHOTOS", "--out", "PHOTOS"], "exists already: give a new folder"),
        (["NETWORK", "LIST"], "line 3 names 'x.png', which is no file"),
        (["NETWORK", "COLUMNS"], "lists no images: it needs rows and a column called file"),
        (["https://example.org/run", "PHOTOS"], "https://example.org/run is not on this machine: give a file"),
        (["NETWORK", "PHOTOS", "http://example.org/a.png"], "http://example.org/a.png is not on this machine"),
        (["NETWORK", "VIDEO"], "cannot be decoded as a video"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing(network, photos, tmp_path, arguments, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.csv").write_text("file\nphotos/a.png\nx.png\n", "utf-8")
    (tmp_path / "columns.csv").write_text("name\na.png\n", "utf-8")
    (tmp_path / "video.mp4").write_bytes(b"nothing")
    files = {"NETWORK": network, "PHOTOS": photos, "EMPTY": tmp_path / "empty", "LIST": tmp_path / "list.csv"}
    files |= {"COLUMNS": tmp_path / "columns.csv", "VIDEO": tmp_path / "video.mp4"}
    files |= {"MAPS": export(tmp_path / "maps", maps=True)}
    given = [str(files.get(word, word)) for word in arguments]
    with pytest.raises(UserError, match=message):
        main([*given, *([] if "--out" in given else ["--out", str(tmp_path / "out")])])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", [["--batch", "0"], ["--score", "2"], ["--tile", "big"], ["--every", "-1"]])
def test_values_out_of_range_are_one_sentence(network, option, capsys):
    with pytest.raises(SystemExit):
        main([str(network), ".", *option])
    assert f"argument {option[0]}: '{option[1]}' must be" in capsys.readouterr().err

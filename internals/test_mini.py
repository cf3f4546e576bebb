"""Small data sets cut out of large ones: the right number, the right shares, and ready to be trained on."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paths import TEMPLATE
from scene_files import write_yolo
from src.kit.catalog import build_dataset
from src.kit.config.compose import load_config
from src.kit.errors import UserError
from src.kit.mini import create_mini_dataset, share_out

SIZES = {"ape": 60, "bee": 30, "cat": 10}


@pytest.fixture
def folder(tmp_path) -> Path:
    """An image folder of unequal classes, each image of its own colour."""
    for level, (name, count) in enumerate(SIZES.items()):
        (tmp_path / "images" / name / "inner").mkdir(parents=True)
        for number in range(count):
            place = tmp_path / "images" / name / ("inner" if number % 2 else ".") / f"{number}.png"
            Image.new("RGB", (8, 8), (level * 100, number, 0)).save(place)
    return tmp_path / "images"


@pytest.fixture
def data() -> Path:
    place = os.environ.get("TEST_DATA_DIR")
    if not place:
        pytest.skip("TEST_DATA_DIR names no folder with the real data")
    return Path(place)


def load(root: Path, split: str, data: str = "image_folder", *keys: str):
    return build_dataset(
        load_config([f"data={data}", f"data.root={root.as_posix()}", "data.image_size=8", *keys]), split
    )


def test_a_folder_keeps_its_shares_and_is_ready_for_training(folder, tmp_path):
    mini = create_mini_dataset(folder, 20, 0.25, tmp_path / "mini")
    train, val = load(mini, "train", "image_folder", "data.test_fraction=0"), load(mini, "val")
    assert (len(train), len(val)) == (15, 5)
    assert train.classes == val.classes == tuple(SIZES)
    assert (train.class_counts() + val.class_counts()).tolist() == [12, 6, 2]
    files = sorted(path.relative_to(mini).parts[1:] for path in mini.rglob("*.png"))
    assert len(files) == len(set(files)) == 20, "no image is in both parts"
    for path in mini.rglob("*.png"):
        assert path.read_bytes() == folder.joinpath(*path.relative_to(mini).parts[1:]).read_bytes()


def test_the_seed_decides_the_sample(folder, tmp_path):
    names = [
        sorted(path.relative_to(create).as_posix() for path in create.rglob("*.png"))
        for create in (
            create_mini_dataset(folder, 20, 0.2, tmp_path / str(number), seed) for number, seed in enumerate((0, 0, 1))
        )
    ]
    assert names[0] == names[1] != names[2]


def test_all_images_and_no_validation(folder, tmp_path):
    mini = create_mini_dataset(folder, 100, 0.0, tmp_path / "mini")
    assert len(list(mini.rglob("*.png"))) == 100
    assert [path.name for path in mini.iterdir()] == ["train"]


def test_only_the_training_images_of_a_split_folder_are_drawn(folder, tmp_path):
    whole = tmp_path / "whole"
    folder.rename(tmp_path / "moved")
    whole.mkdir()
    (tmp_path / "moved").rename(whole / "train")
    (whole / "test" / "ape").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(whole / "test" / "ape" / "secret.png")
    mini = create_mini_dataset(whole, 100, 0.2, tmp_path / "mini")
    assert not list(mini.rglob("secret.png"))


@pytest.mark.parametrize(
    ("count", "share", "said"),
    [
        (101, 0.2, r"sample_count must be 1 to 100, .* not 101"),
        (0, 0.2, "sample_count must be 1 to 100"),
        (20, 1.0, "validation_split must be at least 0 and below 1, but it is 1"),
        (20, -0.1, "validation_split must be"),
        (10, 0.1, r"sample_count=10 is too small: .* 1 for val, and there are 3 classes"),
        (4, 0.5, "is too small"),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence_and_leaves_nothing(folder, tmp_path, count, share, said):
    with pytest.raises(UserError, match=said):
        create_mini_dataset(folder, count, share, tmp_path / "mini")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images"]


def test_a_class_of_one_image_cannot_be_in_both_parts(folder, tmp_path):
    (folder / "dog").mkdir()
    Image.new("RGB", (8, 8)).save(folder / "dog" / "0.png")
    with pytest.raises(UserError, match="The class dog has too few images"):
        create_mini_dataset(folder, 50, 0.2, tmp_path / "mini")


def test_an_existing_folder_is_not_touched(folder, tmp_path):
    (tmp_path / "mini").mkdir()
    with pytest.raises(UserError, match="exists: delete it"):
        create_mini_dataset(folder, 20, 0.2, tmp_path / "mini")


def test_a_copy_that_fails_leaves_nothing(folder, tmp_path, monkeypatch):
    copied = []

    def fill_the_disk(source, target):
        copied.append(target)
        if len(copied) == 7:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("src.kit.mini.shutil.copy2", fill_the_disk)
    with pytest.raises(OSError, match="No space"):
        create_mini_dataset(folder, 20, 0.2, tmp_path / "mini")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images"]


def test_arrays_become_png_files_with_the_same_pixels(tmp_path):
    digits = build_dataset(load_config([]), "train")
    mini = create_mini_dataset(digits, 100, 0.2, tmp_path / "mini")
    train, val = load(mini, "train", "image_folder", "data.test_fraction=0"), load(mini, "val")
    assert (len(train), len(val)) == (80, 20)
    assert set((train.class_counts() + val.class_counts()).tolist()) <= {9, 10, 11}
    path = val.images.paths[7]
    original = digits.images.get(np.array([int(path.stem)]))[0, ..., 0]
    assert np.array_equal(np.asarray(Image.open(path)), original)
    assert digits.classes[digits.targets[int(path.stem)]] == path.parent.name


def test_mnist_becomes_an_image_folder(data, tmp_path):
    whole = build_dataset(load_config(["data=mnist", f"data.root={data.as_posix()}"]), "train")
    mini = create_mini_dataset(whole, 200, 0.25, tmp_path / "mini")
    assert len(load(mini, "val")) == 50


def write_coco(root: Path, count: int = 60) -> dict:
    """One cat in every image, a dog in every second and a bird in every sixth; outlines and keys of their own."""
    content: dict = {"info": {"year": 2024}, "images": [], "annotations": []}
    content["categories"] = [{"id": number, "name": name} for number, name in ((3, "cat"), (7, "dog"), (8, "bird"))]
    (root / "train").mkdir(parents=True)
    (root / "annotations").mkdir()
    for number in range(count):
        name = f"{number:03d}.jpg"
        Image.new("RGB", (32, 24), (number, 0, 0)).save(root / "train" / name)
        content["images"].append({"id": 100 + number, "file_name": name, "width": 32, "height": 24, "license": 4})
        for category in [3] + [7] * (number % 2 == 0) + [8] * (number % 6 == 0):
            box = {"bbox": [2, 3, 10, 8], "segmentation": [[2, 3, 12, 3, 12, 11]], "area": 40.0, "iscrowd": 0}
            identifier = len(content["annotations"])
            content["annotations"].append(
                {"id": identifier, "image_id": 100 + number, "category_id": category, **box, "mine": "kept"}
            )
    (root / "annotations" / "train.json").write_text(json.dumps(content), "utf-8")
    return content


def test_a_coco_folder_keeps_its_entries_and_the_shares_of_its_classes(tmp_path):
    content = write_coco(tmp_path / "coco")
    mini = create_mini_dataset(tmp_path / "coco", 30, 0.2, tmp_path / "mini")
    shown = []
    for split, count in (("train", 24), ("val", 6)):
        scenes = load(mini, split, "coco_folder", "data.test_fraction=0")
        assert len(scenes) == count
        assert scenes.classes == ("cat", "dog", "bird")
        assert scenes.read(0).masks.any()
        shown.append(scenes.has_classes().sum(axis=0))
        kept = json.loads((mini / "annotations" / f"{split}.json").read_text("utf-8"))
        assert all(entry in content["annotations"] for entry in kept["annotations"])
        assert all(entry in content["images"] for entry in kept["images"])
    assert sum(shown).tolist() == pytest.approx([30, 15, 5], abs=1)
    assert shown[1].tolist() == pytest.approx([6, 3, 1], abs=1)


def test_a_yolo_folder_of_real_photos(data, tmp_path):
    root = tmp_path / "yolo"
    for archive in ("coco128-images.zip", "coco128-detection.zip"):
        with zipfile.ZipFile(data / archive) as packed:
            packed.extractall(root, [name for name in packed.namelist() if "train2017" in name])
    (root / "data.yaml").write_text(json.dumps({"names": [f"class {number}" for number in range(80)]}), "utf-8")
    mini = create_mini_dataset(root, 40, 0.25, tmp_path / "mini")
    train, val = (load(mini, split, "yolo_folder", "data.test_fraction=0") for split in ("train", "val"))
    assert (len(train), len(val)) == (30, 10)
    whole = load(root, "train", "yolo_folder", "data.test_fraction=0", "data.val_fraction=0.01")
    people = whole.has_classes().mean(axis=0)[0]
    assert np.concatenate([train.has_classes(), val.has_classes()]).mean(axis=0)[0] == pytest.approx(people, abs=0.1)
    sample = val.read(0)
    assert len(sample.boxes) == len(sample.labels)


def test_data_without_a_class_for_each_image_are_refused(tmp_path):
    root = write_yolo(tmp_path / "yolo", {str(number): "1 0.5 0.5 0.5 0.5" for number in range(8)})
    for original, held in (
        (load(root, "train", "yolo_folder", "data.test_fraction=0"), "boxes or outlines in each image"),
        (build_dataset(load_config(["task=tabular", "data=wine"]), "train"), "the rows of a table"),
    ):
        with pytest.raises(UserError, match=f"holds {held}, and create_mini_dataset takes one class for each image"):
            create_mini_dataset(original, 4, 0.25, tmp_path / "mini")
    assert not (tmp_path / "mini").exists()


def test_a_project_without_boxes_has_it_too(folder, tmp_path):
    shutil.copytree(TEMPLATE / "src", tmp_path / "src", ignore=shutil.ignore_patterns("*scenes*", "__pycache__"))
    keys = "original_dataset='images', sample_count=20, validation_split=0.2, output_dir='mini'"
    code = f"from src.datasets.utils import create_mini_dataset; print(create_mini_dataset({keys}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, stdout=subprocess.PIPE, text=True)
    assert done.stdout.strip() == "mini"
    assert len(list((tmp_path / "mini").rglob("*.png"))) == 20


def test_shares_are_exact_and_leave_no_class_out():
    rng = np.random.default_rng(0)
    for _ in range(500):
        sizes = rng.integers(2, 200, rng.integers(1, 12))
        total = int(rng.integers(2 * len(sizes), sizes.sum() + 1))
        shares = share_out(total, sizes, 2)
        assert shares.sum() == total
        assert shares.min() >= 2
        assert (shares <= sizes).all()
    assert share_out(20, np.array([60, 30, 10]), 2).tolist() == [12, 6, 2]

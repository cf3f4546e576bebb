"""Images that cannot be read: all of them in one message, or left out with a count, by every reader."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask

from checked_data import class_folders, coco_folder, picture, yolo_folder
from src.kit.catalog import build_dataset
from src.kit.config import load_config
from src.kit.errors import UserError
from src.kit.scenes.annotations import Outlines
from src.kit.shards import write_shards
from src.kit.training import Experiment
from src.kit.training.splits import describe_splits

FOLDERS = {
    "image_folder": (class_folders, "train/cat"),
    "yolo_folder": (yolo_folder, "images/train"),
    "coco_folder": (coco_folder, "train"),
}


def break_images(root: Path, name: str, count: int = 2) -> list[Path]:
    """Cut some images of the training split."""
    paths = sorted((root / FOLDERS[name][1]).glob("*.jpg"))[:count]
    for path in paths:
        path.write_bytes(path.read_bytes()[:300])
    return paths


def experiment(name: str, root: Path, *keys: str) -> Experiment:
    task = "classification" if name in ("image_folder", "shards", "mixture") else "detection"
    place = [f"data.root={root}"] if name != "mixture" else []
    sizes = ["data.image_size=32", "data.batch_size=1", "data.num_workers=2"]
    return Experiment(load_config([f"data={name}", f"task={task}", *place, *sizes, *keys]))


@pytest.mark.parametrize("name", FOLDERS)
def test_one_error_names_them_all(tmp_path, name):
    root = FOLDERS[name][0](tmp_path)
    broken = break_images(root, name)
    loader = experiment(name, root).build_loader("train")
    with pytest.raises(UserError, match=rf"2 of {len(loader.split)} images cannot be read") as caught:
        list(loader)
    message = str(caught.value)
    assert all(f"\n  {path}: " in message for path in broken)
    assert "--quarantine" in message
    assert "data.on_error=skip" in message


@pytest.mark.parametrize("name", FOLDERS)
def test_skip_goes_on_without_them_and_counts(tmp_path, name):
    root = FOLDERS[name][0](tmp_path)
    [broken] = break_images(root, name, 1)
    whole = experiment(name, root).split("train")
    skipping = experiment(name, root, "data.on_error=skip")
    batches = list(skipping.build_loader("train"))
    assert len(batches) == len(whole) - 1
    assert broken not in skipping.split("train").sources(np.arange(len(whole) - 1))
    [note] = skipping.notes
    assert note.startswith(f"Left out 1 of {len(whole)} images of the train split")
    assert f"{broken.parent.name}/{broken.name}" in note


def masked_folder(root: Path) -> list[str]:
    """Six images with masks, of which one is damaged, one has another size and one is in colour."""
    for number in range(6):
        picture(root / "images" / "train" / f"{number}.jpg", number)
        (root / "masks" / "train").mkdir(parents=True, exist_ok=True)
        halves = Image.fromarray(np.tile(np.arange(64, dtype=np.uint8) // 32, (48, 1)))
        halves.save(root / "masks" / "train" / f"{number}.png")
    (root / "classes.csv").write_text("name,id\nroad,1\n", "utf-8")
    damaged, small, colour = (root / "masks" / "train" / f"{number}.png" for number in (1, 2, 4))
    damaged.write_bytes(damaged.read_bytes()[:60])
    Image.new("L", (4, 4), 1).save(small)
    Image.new("RGB", (64, 48)).save(colour)
    return [damaged.name, small.name, colour.name]


def test_class_maps_and_annotations_that_cannot_be_read_are_listed_or_left_out(tmp_path):
    broken = masked_folder(tmp_path)
    keys = ["data.val_fraction=0.2", "data.test_fraction=0", "data.mean=[0.5,0.5,0.5]", "data.std=[0.5,0.5,0.5]"]
    stopping = experiment("mask_folder", tmp_path, "task=segmentation", *keys)
    with pytest.raises(UserError, match=r"\d of \d images cannot be read") as caught:
        stopping.split("train")  # splits that are stratified by the maps can be drawn
    skipping = experiment("mask_folder", tmp_path, "task=segmentation", "data.on_error=skip", *keys)
    for name in ("train", "val"):
        list(skipping.build_loader(name))
    left = {name for note in skipping.notes for name in broken if name in note}
    assert left == set(broken)
    trained = {path.name for path in skipping.split("train").sources(np.arange(len(skipping.split("train"))))}
    assert not {name.replace("png", "jpg") for name in broken} & trained
    assert any(name in str(caught.value) for name in broken)


def test_outlines_and_sizes_that_do_not_fit_are_left_out(tmp_path):
    root = coco_folder(tmp_path)
    Image.new("RGB", (4, 4)).save(root / "train" / "0.jpg")
    with pytest.raises(UserError, match=r"1 of 2 images cannot be read.*\n.*0\.jpg: it has 4 x 4 pixels"):
        list(experiment("coco_folder", root).build_loader("train"))
    assert len(experiment("coco_folder", root, "data.on_error=skip").split("train")) == 1
    code = {"size": [48, 64], "counts": mask.encode(np.zeros((64, 64), np.uint8, order="F"))["counts"]}
    scenes = experiment("coco_folder", root).split("train")
    scenes.annotations.outlines = Outlines()
    for _ in range(len(scenes.annotations.labels)):
        scenes.annotations.outlines.append(code)
    with pytest.raises(UserError, match=r"1\.jpg: its outlines cannot be drawn"):
        scenes.check_annotations(1)


def test_at_most_twenty_are_listed(tmp_path):
    for number in range(30):
        picture(tmp_path / "train" / "cat" / f"{number:02d}.jpg", number)
        picture(tmp_path / "train" / "dog" / f"{number:02d}.jpg", 100 + number)
        (tmp_path / "train" / "cat" / f"{number:02d}.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="At least 20 of") as caught:
        list(experiment("image_folder", tmp_path).build_loader("train"))
    assert str(caught.value).count("\n") == 20
    with pytest.raises(UserError, match="No image of the val split"):
        for path in (tmp_path / "train" / "dog").iterdir():
            path.write_bytes(b"")
        build_dataset(experiment("image_folder", tmp_path, "data.on_error=skip").cfg, "val")


def test_mixtures_and_shards_skip_too(tmp_path, capsys):
    root = class_folders(tmp_path / "photos")
    [broken] = break_images(root, "image_folder", 1)
    sources = f"data.sources=[{{data: image_folder, root: '{root}'}}, {{data: digits}}]"
    keys = ["data.mean=[0.5,0.5,0.5]", "data.std=[0.5,0.5,0.5]", "data.on_error=skip"]
    mixed = experiment("mixture", root, sources, *keys).split("train")
    assert f"image_folder/{broken.relative_to(root).as_posix()}" not in mixed.ids
    assert len(mixed.images.get(np.arange(5))) == 5
    split = build_dataset(experiment("image_folder", root).cfg, "train")
    write_shards(split, "train", tmp_path / "shards" / "train", 10**6, np.arange(len(split)), lambda: None)
    read = build_dataset(experiment("shards", tmp_path / "shards", "data.on_error=skip").cfg, "train")
    assert len(read) == len(split) - 1
    assert f"Left out 1 of {len(split)} images of the train split" in capsys.readouterr().err


def test_the_samples_on_record_are_those_that_were_read(tmp_path):
    root = class_folders(tmp_path)
    [broken] = break_images(root, "image_folder", 1)
    skipping = experiment("image_folder", root, "data.on_error=skip", "data.test_fraction=0.34")
    train = describe_splits(skipping)["train"]
    assert train["samples"] == len(train["ids"]) == 3
    assert broken.relative_to(root).as_posix() not in train["ids"]

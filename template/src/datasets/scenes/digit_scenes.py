"""Scenes of scikit-learn's hand-written digits, written in COCO's format, so nothing is downloaded.

The same code reads COCO 2017. No digit of the training scenes is in the others.
"""

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from src.datasets.digits import read_digits
from src.kit.config import UserError
from src.kit.download import cache_folder, locked
from src.kit.scenes import Scene, Scenes, compose_scene, extent, read_coco, trace
from src.kit.splitting import SplitRule, stratified_split

SCENES = {"train": 3000, "val": 100, "test": 100}
SIZE = 128  # pixels
MOST = 7  # digits in a scene
SEED = 0  # the scenes are the same everywhere


def build(split: SplitRule, *, root: str = "data/digit_scenes") -> Scenes:
    """Scenes of 128 x 128 pixels with up to 7 digits, with boxes and outlines.

    Args:
        root: Folder of the data set.
    """
    folder = Path(root).expanduser()
    if not (folder / "annotations" / f"{split.name}.json").is_file():
        raise UserError(f"{folder} holds no digit scenes: run `python scripts/download.py data=digit_scenes`.")
    scenes = read_coco(folder / "annotations" / f"{split.name}.json", folder / split.name)
    return Scenes(scenes.annotations, scenes.classes, flippable=False)  # a mirrored digit is none


def download(*, root: str) -> Path:
    """Compose the scenes in the folder `root`, unless they are there: all of them or none."""
    folder = Path(root).expanduser()
    if (folder / "annotations").is_dir():
        return folder
    try:
        with locked(folder):
            if not (folder / "annotations").is_dir():  # another process may have composed them
                compose(folder)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"Cannot write {folder} ({reason}): empty it, or set data.root to another folder.") from error
    return folder


def compose(folder: Path) -> None:
    """Write all splits, and then move them to `folder`, which may be an empty one."""
    print(f"Composing {sum(SCENES.values()):,} scenes in {folder}", flush=True)
    glyphs, targets = read_digits()
    parts = stratified_split(targets, (0.15, 0.15), SEED)
    work = cache_folder(folder.parent) / f"{folder.name}.new"  # which `download.py --clean` knows
    shutil.rmtree(work, ignore_errors=True)  # left by a process that was killed
    try:
        work.mkdir()
        for number, (split, part) in enumerate(zip(SCENES, parts, strict=True)):
            write_split(work, split, glyphs[part], targets[part], np.random.default_rng([SEED, number]))
        with suppress(FileNotFoundError):
            folder.rmdir()
        os.replace(work, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def write_split(root: Path, split: str, glyphs: np.ndarray, targets: np.ndarray, rng: np.random.Generator) -> None:
    """Write one split: `<split>/NNNN.jpg` and `annotations/<split>.json`."""
    (root / split).mkdir()
    (root / "annotations").mkdir(exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(SCENES[split]):
        scene = compose_scene(glyphs, targets, SIZE, MOST, rng)
        name = f"{number:04}.jpg"
        Image.fromarray(scene.image).save(root / split / name, quality=95)
        images.append({"id": number + 1, "file_name": name, "width": SIZE, "height": SIZE})
        annotations += [
            {"id": len(annotations) + 1 + k, "image_id": number + 1, **row}
            for k, row in enumerate(describe_objects(scene))
        ]
    categories = [{"id": digit + 1, "name": str(digit)} for digit in range(10)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations" / f"{split}.json").write_text(json.dumps(content), "utf-8")


def describe_objects(scene: Scene) -> list[dict[str, Any]]:
    """Describe a scene's objects as COCO does."""
    return [
        {
            "category_id": int(label) + 1,
            "iscrowd": 0,
            "area": int(mask.sum()),
            "bbox": to_box(mask),
            "segmentation": [ring.astype(float).round(2).ravel().tolist() for ring in trace(mask)],
        }
        for label, mask in zip(scene.labels, scene.masks, strict=True)
    ]


def to_box(mask: np.ndarray) -> list[int]:
    """The bounding box of a mask: x, y, width and height."""
    rows, columns = extent(mask)
    return [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start]

"""Scenes of scikit-learn's hand-written digits, written in COCO's format: detection and segmentation without a network.

They pass the same code as COCO 2017. No digit of the training scenes is in the others.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig
from PIL import Image

from src.kit.config import UserError
from src.kit.scenes import Scene, Scenes, coco, compose, extent, trace
from src.kit.splitting import stratified_split

SCENES = {"train": 3000, "val": 100, "test": 100}
SIZE = 128  # pixels
MOST = 7  # digits in a scene
SEED = 0  # the scenes are the same everywhere


def load(cfg_data: DictConfig, split: str, seed: int) -> Scenes:
    """Scenes of 128 x 128 with up to 7 digits, with boxes and outlines."""
    root = Path(cfg_data.root).expanduser()
    if not (root / "annotations" / f"{split}.json").is_file():
        raise UserError(f"{root} holds no digit scenes: run `python scripts/download.py data=digit_scenes`.")
    scenes = coco.read(root / "annotations" / f"{split}.json", root / split)
    return Scenes(scenes.annotations, scenes.classes, flippable=False)  # a mirrored digit is none


def download(cfg_data: DictConfig) -> Path:
    """Compose the scenes below `data.root`, unless they are there; all of them or none."""
    root = Path(cfg_data.root).expanduser()
    if (root / "annotations").is_dir():
        return root
    from sklearn.datasets import load_digits

    digits = load_digits()
    glyphs = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    parts = stratified_split(digits.target.astype(np.int64), (0.15, 0.15), SEED)
    work = root.with_name(f".{root.name}.{os.getpid()}")
    shutil.rmtree(work, ignore_errors=True)  # of a process that was killed
    try:
        work.mkdir(parents=True)
        for number, (split, part) in enumerate(zip(SCENES, parts, strict=True)):
            write(work, split, glyphs[part], digits.target[part], np.random.default_rng([SEED, number]))
        if root.is_dir() and not any(root.iterdir()):
            root.rmdir()
        os.replace(work, root)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"Cannot write {root} ({reason}): empty it, or set data.root to another folder.") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return root


def write(root: Path, split: str, glyphs: np.ndarray, targets: np.ndarray, rng: np.random.Generator) -> None:
    """Write one split: `<split>/NNNN.jpg` and `annotations/<split>.json`."""
    (root / split).mkdir()
    (root / "annotations").mkdir(exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(SCENES[split]):
        scene = compose(glyphs, targets, SIZE, MOST, rng)
        name = f"{number:04}.jpg"
        Image.fromarray(scene.image).save(root / split / name, quality=95)
        images.append({"id": number + 1, "file_name": name, "width": SIZE, "height": SIZE})
        annotations += [
            {"id": len(annotations) + 1 + k, "image_id": number + 1, **row} for k, row in enumerate(describe(scene))
        ]
    categories = [{"id": digit + 1, "name": str(digit)} for digit in range(10)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations" / f"{split}.json").write_text(json.dumps(content), "utf-8")


def describe(scene: Scene) -> list[dict[str, Any]]:
    """COCO's annotations of a scene."""
    return [
        {
            "category_id": int(label) + 1,
            "iscrowd": 0,
            "area": int(mask.sum()),
            "bbox": box(mask),
            "segmentation": [ring.astype(float).round(2).ravel().tolist() for ring in trace(mask)],
        }
        for label, mask in zip(scene.labels, scene.masks, strict=True)
    ]


def box(mask: np.ndarray) -> list[int]:
    """x, y, width and height of what the mask covers."""
    rows, columns = extent(mask)
    return [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start]

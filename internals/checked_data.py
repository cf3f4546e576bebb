"""Data sets without a fault, for the tests of the checks to spoil."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from src.kit.checks import KINDS, Result, check


def configuration(name: str, root: Path, task: str = "detection") -> DictConfig:
    data = {"name": name, "root": str(root), "image_size": 128, "classes": None}
    return OmegaConf.create({"seed": 0, "task": task, "data": data})


def run(name: str, root: Path, task: str = "detection") -> Result:
    result = check(configuration(name, root, task), 2)
    assert {finding.kind for finding in result.findings} <= KINDS.keys()
    return result


def found(name: str, root: Path, task: str = "detection") -> dict[str, int]:
    return dict(Counter(finding.kind for finding in run(name, root, task).findings))


def picture(path: Path, seed: int, size: tuple[int, int] = (64, 48)) -> None:
    """A picture that looks like no other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 8, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path)


def class_folders(root: Path) -> Path:
    """Class folders without a fault."""
    for number, (split, label) in enumerate((s, c) for s in ("train", "val") for c in ("cat", "dog")):
        for copy in range(3):
            picture(root / split / label / f"{copy}.jpg", 10 * number + copy)
    return root


def yolo_folder(root: Path) -> Path:
    """A YOLO folder without a fault, of boxes."""
    for number, name in enumerate(("train/a", "train/b", "val/c")):
        picture(root / "images" / f"{name}.jpg", number)
        label = root / "labels" / f"{name}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text("0 0.5 0.5 0.4 0.4\n1 0.5 0.5 0.8 0.8\n", "utf-8")
    (root / "data.yaml").write_text("names: [cat, dog]", "utf-8")
    return root


def coco_folder(root: Path) -> Path:
    """A COCO folder without a fault."""
    for split, start in (("train", 0), ("val", 2)):
        images = [{"id": start + i, "file_name": f"{i}.jpg", "width": 64, "height": 48} for i in range(2)]
        for image in images:
            picture(root / split / image["file_name"], image["id"])
        boxes = [{"id": 10 + i, "image_id": start + i % 2, "category_id": 1 + i // 2} for i in range(4)]
        outline = {"bbox": [1, 1, 20, 20], "segmentation": [[1, 1, 21, 1, 21, 21]], "iscrowd": 0}
        content = {
            "info": {"year": 2026},
            "images": images,
            "annotations": [{**box, **outline} for box in boxes],
            "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        }
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"{split}.json").write_text(json.dumps(content), "utf-8")
    return root

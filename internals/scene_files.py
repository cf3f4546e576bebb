"""Small data sets of annotated images on the disk, as the tests of the formats need them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf
from PIL import Image

SQUARE = [2.0, 2.0, 8.0, 2.0, 8.0, 8.0, 2.0, 8.0]


def image(path: Path, size: tuple[int, int] = (20, 10), mode: str = "RGB") -> Path:
    """An image of random colours; `size` is (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.name)).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def annotation(number: int, box: Sequence[Any], **keys: Any) -> dict[str, Any]:
    """One annotation of image 1 and category 3, unless `keys` say otherwise."""
    return {"id": number, "image_id": 1, "category_id": 3, "bbox": list(box), "iscrowd": 0, **keys}


def coco_content(*annotations: dict[str, Any], **keys: Any) -> dict[str, Any]:
    """Two images of 20 x 10 with the ids 1 and 5, and three categories with gaps between their ids."""
    names = {7: "dog", 3: "cat", 90: "owl"}
    return {
        "info": {"year": 2024},
        "images": [{"id": id_, "file_name": f"{id_}.png", "width": 20, "height": 10} for id_ in (1, 5)],
        "annotations": list(annotations),
        "categories": [{"id": id_, "name": name} for id_, name in names.items()],
        **keys,
    }


def write_coco(root: Path, content: dict[str, Any], split: str = "train") -> Path:
    """root/annotations/<split>.json with root/<split>/<id>.png; returns the annotation file."""
    for entry in content["images"]:
        image(root / split / str(entry["file_name"]), (20, 10))
    file = root / "annotations" / f"{split}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), "utf-8")
    return file


def write_yolo(root: Path, labels: dict[str, str], names: Sequence[str] = ("cat", "dog"), split: str = "train") -> Path:
    """root/images/<split>/<stem>.png of 20 x 10 and the label files; returns the root."""
    (root / "labels" / split).mkdir(parents=True)
    for stem, text in labels.items():
        image(root / "images" / split / f"{stem}.png")
        (root / "labels" / split / f"{stem}.txt").write_text(text, "utf-8")
    (root / "data.yaml").write_text(json.dumps({"names": list(names)}), "utf-8")
    return root


def configuration(name: str, root: Path, **keys: Any) -> DictConfig:
    """What build_dataset needs."""
    data = {"name": name, "root": str(root), "val_fraction": 0.2, "test_fraction": 0.2, "classes": None}
    data |= {"group_pattern": None, "fold": None, "folds": None, **keys}
    return OmegaConf.create({"seed": 0, "data": data})

"""Checks of annotated images for `src.kit.checks`: boxes, outlines and classes in COCO files and YOLO labels."""

from pathlib import Path

from omegaconf import DictConfig

from src.kit.checks import ImageFiles
from src.kit.scenes import is_coco, is_yolo
from src.kit.scenes_checks.coco import CocoFolder
from src.kit.scenes_checks.yolo import Coco128Folder, YoloFolder

__all__ = ["CocoFolder", "YoloFolder", "find_checker"]

FOLDERS: dict[str, type[ImageFiles]] = {
    "coco128": Coco128Folder,
    "coco2017": CocoFolder,
    "coco_folder": CocoFolder,
    "digit_scenes": CocoFolder,
    "yolo_folder": YoloFolder,
}
TASKS = ("detection", "segmentation", "instance_segmentation")


def find_checker(cfg: DictConfig) -> type[ImageFiles] | None:
    """The checker of an annotated data set. One of your own is recognised by its files."""
    if cfg.data.name in FOLDERS:
        return FOLDERS[cfg.data.name]
    root = Path(cfg.data.get("root") or ".").expanduser()
    if cfg.get("task") not in TASKS:
        return None
    return CocoFolder if is_coco(root) else YoloFolder if is_yolo(root) else None

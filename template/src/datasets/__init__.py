"""The data sets by name. They are NumPy in, NumPy out, and know no framework."""

from typing import Any

from omegaconf import DictConfig

from src.datasets.base import Split
from src.utils.errors import UserError
from src.utils.registry import resolve, unknown

# name -> module with load(cfg_data, split, seed) -> Split or Scenes, and download(cfg_data) -> Path | None
DATASETS: dict[str, str] = {
    "breast_cancer": "src.datasets.tabular.bundled",
    "cifar10": "src.datasets.cifar10",
    "coco128": "src.datasets.coco128",
    "coco2017": "src.datasets.coco2017",
    "coco_folder": "src.datasets.coco_folder",
    "digit_scenes": "src.datasets.digit_scenes",
    "digits": "src.datasets.digits",
    "housing": "src.datasets.tabular.housing",
    "image_folder": "src.datasets.image_folder",
    "imagenet": "src.datasets.imagenet",
    "mixture": "src.datasets.mixture",
    "mnist": "src.datasets.mnist",
    "shards": "src.datasets.shards",
    "table_file": "src.datasets.tabular.table_file",
    "wine": "src.datasets.tabular.bundled",
    "yolo_folder": "src.datasets.yolo_folder",
}
SPLITS = ("train", "val", "test")


def build_dataset(cfg: DictConfig, split: str) -> Any:
    """Load the "train", "val" or "test" split of `cfg.data`, with only the classes in `cfg.data.classes`.

    The same `cfg.seed` gives the same samples in the same order.

    Returns:
        `base.Split` for classification, `samples.Scenes` for data with boxes and masks.

    Raises:
        UserError: an unknown data set or class, missing or damaged files, or a split without samples.
    """
    assert split in SPLITS, split
    loaded = resolve(DATASETS, cfg.data.name, "data set").load(cfg.data, split, cfg.seed)
    if cfg.data.classes is not None:
        loaded = keep_classes(loaded, [str(name) for name in cfg.data.classes])
    if len(loaded) == 0:
        where = f"with data.classes={list(cfg.data.classes)}" if cfg.data.classes is not None else ""
        raise UserError(
            f"The {split} split of {cfg.data.name} has no sample {where}".rstrip() + ": raise data.val_fraction "
            "(and data.test_fraction where there is one), add images, or choose other classes."
        )
    return loaded


def keep_classes(loaded: Any, names: list[str]) -> Any:
    """Keep the samples of these classes, numbered anew from 0 in the data set's own order."""
    for name in names:
        if name not in loaded.classes:
            raise UserError(unknown("class in data.classes", name, loaded.classes))
    kept = [number for number, name in enumerate(loaded.classes) if name in names]
    if len(kept) < 2 and isinstance(loaded, Split):
        raise UserError(f"data.classes={names} leaves {len(kept)} class, and a classifier needs at least 2.")
    return loaded.take_classes(kept)

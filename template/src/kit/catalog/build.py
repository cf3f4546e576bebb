"""The data sets by name. They are NumPy in, NumPy out, and know no framework."""

from typing import Any

from omegaconf import DictConfig

from src.kit.config import UserError, resolve, unknown
from src.kit.loading import Split

# name -> module with load(cfg_data, split, seed) -> Split or Scenes, and download(cfg_data) -> Path | None
DATASETS: dict[str, str] = {
    "breast_cancer": "src.datasets.tabular.bundled",
    "cifar10": "src.datasets.cifar10",
    "coco128": "src.datasets.scenes.coco128",
    "coco2017": "src.datasets.scenes.coco2017",
    "coco_folder": "src.datasets.scenes.coco_folder",
    "digit_scenes": "src.datasets.scenes.digit_scenes",
    "digits": "src.datasets.digits",
    "housing": "src.datasets.tabular.housing",
    "image_folder": "src.datasets.image_folder",
    "imagenet": "src.datasets.imagenet",
    "mixture": "src.datasets.mixture",
    "mnist": "src.datasets.mnist",
    "shards": "src.datasets.shards",
    "table_file": "src.datasets.tabular.table_file",
    "wine": "src.datasets.tabular.bundled",
    "yolo_folder": "src.datasets.scenes.yolo_folder",
}
SPLITS = ("train", "val", "test")
TARGETS = {"tabular": "classes", "tabular_regression": "number"}  # task -> data.target.kind that it predicts


def build_dataset(cfg: DictConfig, split: str) -> Any:
    """Load the "train", "val" or "test" split of `cfg.data`, with only the classes in `cfg.data.classes`.

    The same `cfg.seed` gives the same samples in the same order.

    Returns:
        `base.Split` for classification, `samples.Scenes` for data with boxes and masks, `split.TableSplit` for tables.

    Raises:
        UserError: an unknown data set or class, missing or damaged files, a split without samples, or a table whose
            target is not what `cfg.task` predicts.
    """
    assert split in SPLITS, split
    refuse_other_task(cfg)
    loaded = resolve(DATASETS, cfg.data.name, "data set").load(cfg.data, split, cfg.seed)
    if cfg.data.classes is not None:
        loaded = keep_classes(loaded, [str(name) for name in cfg.data.classes])
    if len(loaded) == 0:
        where = f"with data.classes={list(cfg.data.classes)}" if cfg.data.classes is not None else ""
        raise UserError(
            f"The {split} split of {cfg.data.name} has no sample {where}".rstrip() + ": raise data.val_fraction "
            f"(and data.test_fraction where there is one), add {'rows' if 'target' in cfg.data else 'images'}, or "
            "choose other classes."
        )
    return loaded


def refuse_other_task(cfg: DictConfig) -> None:
    """Refuse a table's target of classes where a number is predicted, and the reverse, before anything is read.

    Read as classes, numbers would be refused for something else, such as a class with a single row.
    """
    if "target" not in cfg.data or cfg.task not in TARGETS or cfg.data.target.kind == TARGETS[cfg.task]:
        return
    task = next(task for task, kind in TARGETS.items() if kind == cfg.data.target.kind)
    held = {"classes": "classes", "number": "numbers"}[cfg.data.target.kind]
    own = f", or set data.target.kind={TARGETS[cfg.task]}" if "root" in cfg.data else ""  # whose columns are not known
    raise UserError(
        f"The target column {cfg.data.target.column!r} of data={cfg.data.name} holds {held}: set task={task}, not "
        f"{cfg.task}{own}."
    )


def keep_classes(loaded: Any, names: list[str]) -> Any:
    """Keep the samples of these classes, numbered anew from 0 in the data set's own order."""
    for name in names:
        if name not in loaded.classes:
            raise UserError(unknown("class in data.classes", name, loaded.classes))
    kept = [number for number, name in enumerate(loaded.classes) if name in names]
    if len(kept) < 2 and isinstance(loaded, Split):
        raise UserError(f"data.classes={names} leaves {len(kept)} class, and a classifier needs at least 2.")
    return loaded.take_classes(kept)

"""The data sets by name. They are NumPy in, NumPy out, and know no framework."""

from omegaconf import DictConfig

from src.datasets.base import Split
from src.utils.errors import UserError
from src.utils.registry import resolve, unknown

# name -> module with load(cfg_data, split, seed) -> Split and download(cfg_data) -> Path | None
DATASETS: dict[str, str] = {
    "cifar10": "src.datasets.cifar10",
    "digits": "src.datasets.digits",
    "image_folder": "src.datasets.image_folder",
    "mnist": "src.datasets.mnist",
}
SPLITS = ("train", "val", "test")


def build_dataset(cfg: DictConfig, split: str) -> Split:
    """Load the "train", "val" or "test" split of `cfg.data`, with only the classes in `cfg.data.classes`.

    The same `cfg.seed` gives the same samples in the same order.

    Raises:
        UserError: an unknown data set or class, missing or damaged files, or a split without samples.
    """
    assert split in SPLITS, split
    loaded: Split = resolve(DATASETS, cfg.data.name, "data set").load(cfg.data, split, cfg.seed)
    if cfg.data.classes is not None:
        loaded = keep_classes(loaded, [str(name) for name in cfg.data.classes])
    if len(loaded) == 0:
        where = f"with data.classes={list(cfg.data.classes)}" if cfg.data.classes is not None else ""
        raise UserError(
            f"The {split} split of {cfg.data.name} has no sample {where}".rstrip() + ": raise data.val_fraction "
            "(and data.test_fraction where there is one), add images, or choose other classes."
        )
    return loaded


def keep_classes(split: Split, names: list[str]) -> Split:
    """Keep the samples of these classes, numbered anew from 0 in the data set's own order."""
    for name in names:
        if name not in split.classes:
            raise UserError(unknown("class in data.classes", name, split.classes))
    kept = [number for number, name in enumerate(split.classes) if name in names]
    if len(kept) < 2:
        raise UserError(f"data.classes={names} leaves {len(kept)} class, and a classifier needs at least 2.")
    return split.take_classes(kept)

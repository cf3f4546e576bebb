"""The data sets that this project knows: build a split, download its files, choose the set that fits a machine.

A data set is a file `src/datasets/**/<name>.py` with `build`; it is NumPy in, NumPy out, and knows no framework.
"""

import inspect
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from omegaconf import DictConfig, OmegaConf

from src.kit.catalog.imagenet import SYNSETS, prepare_imagenet
from src.kit.catalog.specs import (
    STAGES,
    DatasetSpec,
    Selection,
    auto_select_dataset,
    dataset_specs,
    fetch_dataset,
    find_spec,
    show_info,
)
from src.kit.config import UserError, buildable, find_component, load_component, refuse_url, returned, unknown
from src.kit.loading import PLAIN, Split, drop_broken, measure_range, read_settings, reading_of
from src.kit.splitting import SplitRule

__all__ = [
    "SPLITS",
    "STAGES",
    "SYNSETS",
    "DatasetSpec",
    "Selection",
    "auto_select_dataset",
    "build_dataset",
    "build_split",
    "call_with_keys",
    "dataset_module",
    "dataset_specs",
    "download_dataset",
    "fetch_dataset",
    "find_spec",
    "prepare_imagenet",
    "show_info",
]

SPLITS = ("train", "val", "test")
SHARED = ("val_fraction", "test_fraction", "fold", "folds", "group_pattern")  # keys of `data` for `SplitRule`


def build_dataset(cfg: DictConfig, split: str, notes: list[str] | None = None) -> Any:
    """Build the "train", "val" or "test" split of `cfg.data`, with only the classes in `cfg.data.classes`.

    The same `cfg.seed` gives the same samples in the same order.

    Args:
        notes: gets a sentence on the images that `data.on_error=skip` leaves out; without it, stderr does.

    Returns:
        What the data set's `build` returns: a `Split` for classification, or what its task learns from.

    Raises:
        UserError: an unknown data set or class, missing or damaged files, a split without samples, or what the data
            set's `build` refuses.
    """
    dataset = build_split(cfg.data, split, cfg.seed, cfg.get("task", ""))
    classes = cfg.data.get("classes")
    if classes is not None:
        dataset = keep_classes(dataset, [str(name) for name in classes])
    if len(dataset) == 0:
        where = f"with data.classes={list(classes)}" if classes is not None else ""
        raise UserError(
            f"The {split} split of {cfg.data.name} has no sample {where}".rstrip() + ": raise data.val_fraction "
            f"(and data.test_fraction where there is one), add {getattr(dataset, 'unit', 'images')}, or "
            "choose other classes."
        )
    dataset = read_files_as(cfg, split, dataset)
    reading = reading_of(dataset)
    if reading is None or cfg.data.get("on_error") != "skip":
        return dataset
    dataset, note = drop_broken(dataset, reading, split)
    if note and notes is None:
        sys.stderr.write(f"{note}\n")
    elif note and notes is not None:
        notes.append(note)
    return dataset


def read_files_as(cfg: DictConfig, split: str, dataset: Any) -> Any:
    """Have the data set's files read as `data.bands`, `data.range` and `data.background` say.

    `data.range=auto` is chosen from the training split, or was when shards with the same bands were written: looking
    at images all over the split would download all shards. Images in memory stay as they are.

    Raises:
        UserError: keys for image files, and the images are in memory.
    """
    if not hasattr(dataset, "read_as") or "bands" not in cfg.data:
        return dataset
    reading = read_settings(cfg.data)
    in_files = dataset.read_as(reading)
    if in_files is dataset:
        if reading != PLAIN:
            raise UserError(
                f"data.bands, data.range and data.background are for image files, and data={cfg.data.name} has none: "
                "leave them out."
            )
        return dataset
    if cfg.data.range != "auto":
        return in_files
    written = getattr(getattr(dataset, "images", None), "written_reading", None)
    if written and written["bands"] == reading["bands"]:
        return dataset.read_as({**reading, "range": written["range"]})
    train = dataset
    if split != "train":
        with suppress(UserError):  # such as data.test_fraction=1, where all images are for testing
            train = build_dataset(cfg, "train")
    return dataset.read_as({**reading, "range": measure_range(train, reading["bands"])})


def build_split(cfg_data: DictConfig, split: str, seed: int, task: str = "") -> Any:
    """Build one split with all its classes; it may be empty."""
    assert split in SPLITS, split
    rule = SplitRule(split, seed, cfg_data.name, task, **{key: cfg_data[key] for key in SHARED if key in cfg_data})
    return returned(call_with_keys(dataset_module(cfg_data).build, cfg_data, rule), f"data={cfg_data.name}")


def download_dataset(cfg_data: DictConfig) -> Path | None:
    """Download what is missing of a data set.

    Returns:
        The data set's folder; None if there is nothing to download.

    Raises:
        UserError: what the data set's `download` raises, such as no connection or another checksum.
    """
    module = dataset_module(cfg_data)
    if not hasattr(module, "download"):
        return None
    folder: Path | None = call_with_keys(module.download, cfg_data)
    return folder


def dataset_module(cfg_data: DictConfig) -> ModuleType:
    """Import the file of a data set.

    Raises:
        UserError: there is no such file, and the message lists those that exist; or a data set of files has a URL.
    """
    if cfg_data.name in dataset_specs():
        refuse_url(str(cfg_data.get("root", "")), "data.root=")
    name = cfg_data.get("file", cfg_data.name)
    if find_component("data", name) is None:
        raise UserError(unknown("data set", name, buildable("data")))
    return load_component("data", name)


def call_with_keys(function: Callable[..., Any], cfg_data: DictConfig, *arguments: Any) -> Any:
    """Call a data set's function with the keys of `data` that its keyword arguments name.

    Raises:
        UserError: a keyword argument without a default has no key.
    """
    keys = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is not parameter.KEYWORD_ONLY:
            continue
        if name in cfg_data:
            value = cfg_data[name]
            keys[name] = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        elif parameter.default is parameter.empty:
            raise UserError(f"data={cfg_data.name} needs the key {name!r}: add it to src/configs/data.")
    return function(*arguments, **keys)


def keep_classes(dataset: Any, names: list[str]) -> Any:
    """Keep the samples of these classes, renumbered from 0 in the data set's own order."""
    if not dataset.classes:
        raise UserError(f"data.classes={names} needs classes, and the targets are numbers: set it to null.")
    for name in names:
        if name not in dataset.classes:
            raise UserError(unknown("class in data.classes", name, dataset.classes))
    kept = [number for number, name in enumerate(dataset.classes) if name in names]
    if len(kept) < 2 and isinstance(dataset, Split):
        raise UserError(f"data.classes={names} leaves {len(kept)} class, and a classifier needs at least 2.")
    return dataset.take_classes(kept)

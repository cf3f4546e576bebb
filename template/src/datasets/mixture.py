"""Several data sets as one: a share of each in every epoch of training, and common names for their classes.

    python scripts/train.py data=mixture "data.sources=[{data: digits, weight: 0.7}, {data: mnist, weight: 0.3}]"

A source names a data set. `weight` is its share of the samples in an epoch (default 1). `classes` renames its classes;
those it leaves out keep their names, and null drops one. All other keys are keys of that data set, such as `root`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from src.kit.catalog import build_split, download_dataset
from src.kit.config import Range, UserError, option, option_names, unknown
from src.kit.loading import MixedImages, Split
from src.kit.splitting import SplitRule
from src.kit.training import list_ids


@dataclass(frozen=True)
class Source:
    """One entry of `data.sources`."""

    name: str
    weight: float
    renamed: dict[str, str | None]
    cfg: DictConfig


def build(
    split: SplitRule,
    *,
    sources: Sequence[Any],
    image_size: Annotated[int, Range(min=1)] = 28,
    mean: Sequence[float] = (0.5,),
    std: Sequence[float] = (0.5,),
) -> Split:
    """All samples of this split of every source, image_size x image_size, with one channel per value of `mean`.

    Classes are numbered in the order in which the sources first name them.

    Args:
        sources: Data sets to mix, such as {data: digits, weight: 0.7}.
        image_size: Height and width in pixels.
        mean: One value for grey images, three for colour.
        std: As many values as `mean`.

    Raises:
        UserError: an unknown source, key or class, a weight that isn't above 0, data other than images with one class
            each, or keys that only a source can have.
    """
    refuse_keys(split, mean, std)
    shared = {"image_size": image_size, "fold": split.fold, "folds": split.folds}
    parts, classes, ids = [], list[str](), list[str]()
    entries = read_sources(sources, shared)
    for source in entries:
        part = build_split(source.cfg, split.name, split.seed)
        if not isinstance(part, Split) or part.content != Split.content or hasattr(part.images, "epoch_order"):
            raise UserError(
                f"data.sources cannot mix {source.name}: it takes images with one class each, and no shards."
            )
        parts.append(rename_classes(part, source, classes))
        own = list_ids(parts[-1], Path(source.cfg.get("root", ".")))
        ids += [f"{source.name}/{id}" for id in own or range(len(parts[-1]))]
    return Split(
        MixedImages([part.images for part in parts], [source.weight for source in entries], len(mean)),
        np.concatenate([part.targets for part in parts]),
        tuple(classes),
        flippable=all(part.flippable for part in parts),
        ids=np.array(ids),
    )


def refuse_keys(split: SplitRule, mean: Sequence[float], std: Sequence[float]) -> None:
    """Refuse keys without effect, and numbers of channels that no image has."""
    if split.group_pattern is not None:
        raise UserError(
            f"data.group_pattern={split.group_pattern!r} is for the images of one data set: give it to those entries "
            "of data.sources that are folders, as {data: image_folder, group_pattern: ...}, and set it to null."
        )
    if len(mean) not in (1, 3) or len(mean) != len(std):
        raise UserError(
            f"data.mean={list(mean)} and data.std={list(std)} decide whether a mixture is grey or in colour: give both "
            "one value, or both three."
        )


def download(*, sources: Sequence[Any]) -> None:
    """Download what the sources need."""
    for source in read_sources(sources, {}):
        download_dataset(source.cfg)


def read_sources(entries: Sequence[Any], shared: dict[str, Any]) -> list[Source]:
    """Check `data.sources` and compose each source's configuration, with the `shared` keys of the mixture."""
    sources = []
    for entry in entries:
        if not isinstance(entry, dict) or "data" not in entry:
            raise UserError(f"data.sources must list entries such as {{data: digits, weight: 0.5}}, not {entry!r}.")
        keys = {str(key): value for key, value in entry.items()}
        name, weight, renamed = str(keys.pop("data")), keys.pop("weight", 1.0), keys.pop("classes", None) or {}
        known = [name for name in option_names("data") if name != "mixture"]
        if name not in known:
            raise UserError(unknown("data set in data.sources", name, known))
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 < weight < float("inf"):
            raise UserError(f"data.sources: the weight of {name} must be a number above 0, not {weight!r}.")
        if not isinstance(renamed, dict):
            raise UserError(f"data.sources: classes of {name} must map old names to new ones, not {renamed!r}.")
        cfg = option("data", name)
        for key in keys:
            if key not in cfg:
                raise UserError(f"data.sources: {unknown(f'key of {name}', key, cfg)}")
            if key in shared or key in ("bands", "range", "background", "on_error"):
                raise UserError(f"data.sources: {key} is the mixture's, not one of {name}'s: set data.{key}.")
        names = {str(old): None if new is None else str(new) for old, new in renamed.items()}
        sources.append(Source(name, float(weight), names, OmegaConf.merge(cfg, shared, keys)))
    return sources


def rename_classes(part: Split, source: Source, classes: list[str]) -> Split:
    """Number a source's samples by the mixture's `classes`, to which new names are added."""
    for old in source.renamed:
        if old not in part.classes:
            raise UserError(f"data.sources: {unknown(f'class of {source.name}', old, part.classes)}")
    names = [source.renamed.get(name, name) for name in part.classes]
    classes += [name for name in dict.fromkeys(names) if name is not None and name not in classes]
    numbers = np.array([-1 if name is None else classes.index(name) for name in names])[part.targets]
    kept = part.take(np.flatnonzero(numbers >= 0)) if (numbers < 0).any() else part
    return Split(kept.images, numbers[numbers >= 0], tuple(classes), kept.flippable, kept.ids)

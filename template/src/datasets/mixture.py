"""Several data sets as one: a share of each in every epoch of training, and common names for their classes.

    python scripts/train.py data=mixture "data.sources=[{data: digits, weight: 0.7}, {data: mnist, weight: 0.3}]"

A source is the name of a data set's config. `weight` is its share of the samples that an epoch draws (1 if left out).
`classes` renames its classes; those it does not name keep their names, and null drops one. All other keys are keys of
that config, such as `root`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from omegaconf import DictConfig, OmegaConf

from src.kit.catalog import DATASETS
from src.kit.config import UserError, option, option_names, resolve, unknown
from src.kit.loading import MixedImages, Split
from src.kit.training import list_ids

GIVEN = ("image_size", "fold", "folds")  # what the mixture decides for its sources


@dataclass(frozen=True)
class Source:
    """One entry of `data.sources`."""

    name: str
    weight: float
    renamed: dict[str, str | None]
    cfg: DictConfig


def load(cfg_data: DictConfig, split: str, seed: int) -> Split:
    """All samples of a split of every source, `image_size` x `image_size`, with as many channels as `mean` has values.

    The classes come in the order in which the sources name them first.

    Raises:
        UserError: a source, key or class that does not exist, a weight that is not above 0, data that are no images
            with one class each, or keys that only a source can have.
    """
    refuse(cfg_data)
    parts, classes, ids = [], list[str](), list[str]()
    sources = read_sources(cfg_data)
    for source in sources:
        part = resolve(DATASETS, source.cfg.name, "data set").load(source.cfg, split, seed)
        if not isinstance(part, Split) or hasattr(part.images, "epoch_order"):
            raise UserError(
                f"data.sources cannot mix {source.name}: it takes images with one class each, and no shards."
            )
        parts.append(rename(part, source, classes))
        own = list_ids(parts[-1], Path(source.cfg.get("root", ".")))
        ids += [f"{source.name}/{id}" for id in own or range(len(parts[-1]))]
    return Split(
        MixedImages([part.images for part in parts], [source.weight for source in sources], len(cfg_data.mean)),
        np.concatenate([part.targets for part in parts]),
        tuple(classes),
        flippable=all(part.flippable for part in parts),
        ids=np.array(ids),
    )


def refuse(cfg_data: DictConfig) -> None:
    """Refuse keys that would have no effect, and numbers of channels that no image has."""
    if cfg_data.group_pattern is not None:
        raise UserError(
            f"data.group_pattern={cfg_data.group_pattern!r} is for the images of one data set: give it to those "
            "entries of data.sources that are folders, as {data: image_folder, group_pattern: ...}, and set it to null."
        )
    mean, std = list(cfg_data.mean), list(cfg_data.std)
    if len(mean) not in (1, 3) or len(mean) != len(std):
        raise UserError(
            f"data.mean={mean} and data.std={std} decide whether a mixture is grey or in colour: give both one value, "
            "or both three."
        )


def download(cfg_data: DictConfig) -> None:
    """Fetch what the sources need."""
    for source in read_sources(cfg_data):
        resolve(DATASETS, source.cfg.name, "data set").download(source.cfg)


def read_sources(cfg_data: DictConfig) -> list[Source]:
    """Check `data.sources` and give each the config of its data set."""
    sources = []
    for entry in OmegaConf.to_container(cfg_data.sources, resolve=True):
        if not isinstance(entry, dict) or "data" not in entry:
            raise UserError(f"data.sources must list entries such as {{data: digits, weight: 0.5}}, not {entry!r}.")
        keys = {str(key): value for key, value in entry.items()}
        name, weight, renamed = str(keys.pop("data")), keys.pop("weight", 1.0), keys.pop("classes", None) or {}
        known = [name for name in option_names("data") if name != cfg_data.name]
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
            if key in GIVEN:
                raise UserError(f"data.sources: {key} is the mixture's, not one of {name}'s: set data.{key}.")
        cfg = OmegaConf.merge(cfg, {key: cfg_data[key] for key in GIVEN}, keys)
        names = {str(old): None if new is None else str(new) for old, new in renamed.items()}
        sources.append(Source(name, float(weight), names, cfg))
    return sources


def rename(part: Split, source: Source, classes: list[str]) -> Split:
    """Give a source's samples their classes in the mixture, `classes`, which grows by those that are new."""
    for old in source.renamed:
        if old not in part.classes:
            raise UserError(f"data.sources: {unknown(f'class of {source.name}', old, part.classes)}")
    names = [source.renamed.get(name, name) for name in part.classes]
    classes += [name for name in dict.fromkeys(names) if name is not None and name not in classes]
    numbers = np.array([-1 if name is None else classes.index(name) for name in names])[part.targets]
    kept = part.take(np.flatnonzero(numbers >= 0)) if (numbers < 0).any() else part
    return Split(kept.images, numbers[numbers >= 0], tuple(classes), kept.flippable, kept.ids)

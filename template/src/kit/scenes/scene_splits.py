"""The train, val and test split of annotated images, from whatever splits the files have."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from src.kit.config import UserError, unknown
from src.kit.scenes.join import join
from src.kit.scenes.samples import Scenes
from src.kit.splitting import group_by, split_off_val


def choose(
    parts: Mapping[str, Callable[[], Scenes]],
    classes: Callable[[], Sequence[str]],
    cfg_data: DictConfig,
    split: str,
    seed: int,
) -> Scenes:
    """Return "train", "val" or "test", with the classes numbered as in training.

    A split without a part of its own is `val_fraction` or `test_fraction` of the images of "train", stratified by the
    classes that they show. Folds are made of "train" and "val" together.

    Args:
        parts: split -> what reads it; "train" must be there.
        classes: reads those of "train", without its images where that is faster.

    Raises:
        UserError: a part with a class that "train" lacks, or what `split_off_val` refuses.
    """
    own_val = "val" in parts and cfg_data.fold is None
    if split in parts and (split == "test" or (split == "val" and own_val)):
        return number_as(parts[split](), classes())
    whole = parts["train"]()
    if "val" in parts:
        cfg_data = DictConfig({**cfg_data, "val_fraction": 0.0})
        if not own_val:
            whole = join(whole, number_as(parts["val"](), whole.classes))
    test_fraction = 0.0 if "test" in parts else cfg_data.test_fraction
    if own_val and test_fraction == 0:
        return whole
    groups = None
    if cfg_data.group_pattern:
        root = Path(cfg_data.root).expanduser()
        names = [Path(os.path.relpath(whole.path(index), root)).as_posix() for index in range(len(whole))]
        groups = group_by(names, cfg_data.group_pattern)
    return whole.take(split_off_val(whole.has_classes(), cfg_data, seed, split, test_fraction, groups))


def number_as(scenes: Scenes, classes: Sequence[str]) -> Scenes:
    """Give the classes the numbers that their names have in `classes`."""
    if scenes.classes == tuple(classes):
        return scenes
    for name in scenes.classes:
        if name not in classes:
            raise UserError(f"The training annotations lack a class: {unknown('class', name, classes)}")
    places = np.array([list(classes).index(name) for name in scenes.classes], np.int64)
    numbers = np.where(scenes.numbers >= 0, places[scenes.numbers], -1)
    return Scenes(scenes.annotations, classes, scenes.flippable, scenes.indices, numbers)

"""From a table to its splits: everything that is learned about the columns is learned from the training rows."""

import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
from omegaconf import DictConfig, OmegaConf

from src.kit.config import UserError
from src.kit.loading import refuse_keys
from src.kit.splitting import split_off_val
from src.kit.tabular.preprocessing import Preprocessing, fit, from_json
from src.kit.tabular.resample import resample
from src.kit.tabular.select import select
from src.kit.tabular.split import Rows, TableSplit
from src.kit.tabular.table import Table, refuse_strays
from src.kit.tabular.target import Target, read_target
from src.kit.weights import load_metadata

PARTS = ("train", "val", "test")


def load_table(read: Callable[[DictConfig], Table], cfg_data: DictConfig, split: str, seed: int) -> TableSplit:
    """Load one split of the table that `read(cfg_data)` returns, a function of a module.

    Rows without a target are left out. The splits are stratified by class, or by the deciles of a number.

    Raises:
        UserError: a table or keys that nothing can be learned from.
    """
    path = Path(cfg_data.get("root") or "").expanduser()
    state = (path.stat().st_mtime_ns, path.stat().st_size) if path.is_file() else (0, 0)
    return build(read, OmegaConf.to_yaml(cfg_data, resolve=True), seed, state)[split]


@lru_cache(maxsize=1)  # each split is asked for several times in a run, and all are made together
def build(read: Callable[[DictConfig], Table], config: str, seed: int, state: tuple[int, int]) -> dict[str, TableSplit]:
    """All splits; `config` is the data's configuration as YAML, and another `state` of the file makes them anew."""
    cfg_data = OmegaConf.create(config)
    assert isinstance(cfg_data, DictConfig)
    table = read(cfg_data)
    target = read_target(table, cfg_data)
    refuse(cfg_data, target)
    features = table.drop(cfg_data.target.column)
    refuse_strays(features, cfg_data.columns.categories)
    parts = {name: split_off_val(target.strata, cfg_data, seed, name, cfg_data.test_fraction) for name in PARTS}
    train = parts["train"]
    if cfg_data.preprocessing:
        preprocessing, target = as_trained(Path(cfg_data.preprocessing), target, cfg_data)
    else:
        scaling = (0.0, 1.0) if target.classes else (target.values[train].mean(), target.values[train].std() or 1.0)
        preprocessing = fit(features.take(target.rows[train]), cfg_data.target.column, *map(float, scaling))
        inputs = preprocessing.transform(features.take(target.rows[train]))
        preprocessing = select(preprocessing, inputs, target.values[train], cfg_data, seed)
    splits = {}
    for name, part in parts.items():
        rows = target.rows[part]
        values, targets = preprocessing.transform(features.take(rows)), target.values[part]
        if name == "train" and cfg_data.resample != "none":
            values, targets, origin = resample(values, targets, len(preprocessing.numbers), cfg_data.resample, seed)
            rows = np.where(origin < 0, -1, rows[origin])
        splits[name] = TableSplit(Rows(values), targets, target.classes, False, rows, preprocessing=preprocessing)
    return splits


def as_trained(weights: Path, target: Target, cfg_data: DictConfig) -> tuple[Preprocessing, Target]:
    """What a run learned about the columns, and the target with that run's class numbers.

    Raises:
        UserError: the weights are not of a table, or the target has a class that they don't know.
    """
    metadata = load_metadata(weights)
    if "preprocessing" not in metadata:
        raise UserError(f"{weights} was not trained on a table: set data.preprocessing to a file that was, or to null.")
    preprocessing = from_json(metadata["preprocessing"])
    if not target.classes:
        return preprocessing, target
    classes = tuple(json.loads(metadata["classes"]))
    if strays := [repr(name) for name in target.classes if name not in classes]:
        raise UserError(
            f"The target column {cfg_data.target.column!r} has {', '.join(strays[:5])}, and {weights} was trained on "
            f"{', '.join(map(repr, classes[:5]))} only: leave these rows out."
        )
    numbers = np.array([classes.index(name) for name in target.classes])
    return preprocessing, target._replace(values=numbers[target.values], classes=classes)


def refuse(cfg_data: DictConfig, target: Target) -> None:
    """Refuse keys that need classes where the target is a number."""
    if not target.classes:
        why = f"needs classes, and the target {cfg_data.target.column!r} is a number"
        refuse_keys(cfg_data, {"resample": "none", "classes": None, "sampler": "none"}, why)

"""Splits of a table by group and by time, and targets that are transformed."""

from pathlib import Path

import numpy as np
import pytest

from src.kit.catalog import build_dataset
from src.kit.errors import UserError
from src.kit.tabular.preprocessing import from_json
from src.kit.tabular.target import fit_transform, restore_target, transform_target
from src.kit.training import Experiment
from table_files import mixed_columns, table_config, write_csv

DAYS = np.arange("2020-01-01", "2020-07-19", dtype="M8[D]")  # 200, in no order


def dated(folder: Path) -> Path:
    columns = mixed_columns()
    days = np.random.default_rng(0).permutation(DAYS)
    columns["day"] = [str(day) for day in days]
    columns["patient"] = [f"p{row % 40}" for row in range(199)] + [""]
    columns["price"] = [f"{np.exp(float(age) / 12):.3f}" for age in columns["age"]]
    return write_csv(folder / "table.csv", columns)


def test_a_group_is_in_one_split_and_no_input(tmp_path):
    cfg = table_config(dated(tmp_path), "data.split_by.group=patient")
    parts = {name: build_dataset(cfg, name) for name in ("train", "val", "test")}
    groups = {name: {f"p{row % 40}" if row < 199 else "alone" for row in part.ids} for name, part in parts.items()}
    assert not groups["train"] & groups["val"]
    assert not groups["test"] & (groups["train"] | groups["val"])
    assert sum(map(len, groups.values())) == 41
    assert 20 <= len(parts["test"]) <= 40
    assert "patient" not in parts["train"].preprocessing.names


def test_the_newest_rows_are_for_testing(tmp_path):
    cfg = table_config(path := dated(tmp_path), "data.split_by.time=day", "data.columns.drop=[patient]")
    parts = {name: build_dataset(cfg, name) for name in ("train", "val", "test")}
    assert {name: len(part) for name, part in parts.items()} == {"train": 140, "val": 30, "test": 30}
    order = [np.datetime64(line.split(",")[5]) for line in path.read_text("utf-8").splitlines()[1:]]
    days = {name: [order[row] for row in part.ids] for name, part in parts.items()}
    assert max(days["train"]) < min(days["val"])
    assert max(days["val"]) < min(days["test"])
    assert [name for name in parts["train"].preprocessing.names if "day" in name] == ["day (month)", "day (weekday)"]


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        (("group=patients",), r"no column 'patients' for data\.split_by\.group: did you mean 'patient'\? It has age"),
        (("group=town",), r"no column 'town' for data\.split_by\.group: it has age[^()]*$"),  # not "day (month)"
        (("time=city",), r"split_by\.time=city must be a column of numbers or dates without missing values"),
        (("time=income",), r"split_by\.time=income must be a column of numbers or dates without missing values"),
        (("time=day", "group=patient"), "exclude each other: set one"),
    ],
)
def test_what_cannot_split_is_one_sentence(tmp_path, keys, sentence):
    with pytest.raises(UserError, match=sentence):
        build_dataset(table_config(dated(tmp_path), *(f"data.split_by.{key}" for key in keys)), "train")


def test_rows_in_order_have_no_folds(tmp_path):
    with pytest.raises(UserError, match=r"one order and no folds: leave trainer\.folds out"):
        build_dataset(table_config(dated(tmp_path), "data.split_by.time=day", "data.folds=3", "data.fold=1"), "train")


@pytest.mark.parametrize("transform", ["none", "log", "quantile"])
def test_transforms_can_be_undone(transform):
    targets = np.random.default_rng(0).lognormal(3, 2, 2000)
    knots = fit_transform(targets, transform, "price")
    values = transform_target(targets, transform, knots)
    inside = targets < np.quantile(targets, 0.99)
    np.testing.assert_allclose(restore_target(values, transform, knots)[inside], targets[inside], rtol=1e-6)
    if transform != "none":
        skew = float((((values - values.mean()) / values.std()) ** 3).mean())
        assert abs(skew) < 0.5, "nearly symmetrical"


def test_many_equal_targets_have_one_quantile():
    targets = np.concatenate([np.zeros(500), np.arange(1.0, 501)])
    knots = fit_transform(targets, "quantile", "visits")
    values = transform_target(targets, "quantile", knots)
    assert len(np.unique(values[:500])) == 1
    assert (np.diff(values[500:]) > 0).all()
    np.testing.assert_allclose(restore_target(values, "quantile", knots), targets, atol=1e-6)


def test_scores_of_a_transformed_target_are_in_its_own_unit(tmp_path):
    keys = ["task=tabular_regression", "data.target.kind=number", "data.columns.drop=[patient]"]
    cfg = table_config(dated(tmp_path), *keys, "data.target.transform=log", target="price")
    experiment = Experiment(cfg)
    split = experiment.split("test")
    fitted = from_json(split.preprocessing.to_json())
    assert fitted == split.preprocessing
    targets = np.concatenate([targets for _, targets in experiment.build_loader("test")])
    np.testing.assert_allclose(
        targets[:, 0] * fitted.target_scale + fitted.target_mean, np.log1p(split.targets), rtol=1e-5
    )
    [(predicted, true)] = experiment.task.collect(targets[:, :1], targets)
    np.testing.assert_allclose(true, split.targets, rtol=1e-4)
    np.testing.assert_array_equal(predicted, true)


def test_a_logarithm_of_negative_numbers_is_one_sentence(tmp_path):
    keys = ["task=tabular_regression", "data.target.kind=number", "data.target.transform=log"]
    with pytest.raises(UserError, match=r"log needs numbers of 0 or more, and 'noise' has -.*: use quantile"):
        build_dataset(table_config(dated(tmp_path), *keys, target="noise"), "train")

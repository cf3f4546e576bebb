"""What is learned from the training rows, and what becomes of rows that are unlike them."""

import numpy as np
import pytest
from omegaconf import OmegaConf
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from src.datasets.tabular import table_file
from src.kit.catalog import build_dataset, call_with_keys
from src.kit.errors import UserError
from src.kit.tabular.preprocessing import MOST_CATEGORIES, fit, from_json, list_bins
from src.kit.tabular.table import Table
from src.kit.weights import load_weights, save_weights
from src.tasks import tabular
from table_files import mixed_columns, mixed_config, table_config, write_csv


def texts(*values: str | None) -> np.ndarray:
    return np.array(values, object)


def test_numbers_are_scaled_as_scikit_learn_does_it(tmp_path):
    cfg = mixed_config(tmp_path)
    table, train = call_with_keys(table_file.read_whole, cfg.data), build_dataset(cfg, "train")
    numbers = np.stack([table.columns[name] for name in ("age", "income", "noise")], axis=1)
    reference = make_pipeline(SimpleImputer(strategy="median"), StandardScaler()).fit(numbers[train.ids])
    for name in ("train", "val", "test"):
        split = build_dataset(cfg, name)
        np.testing.assert_allclose(split.images.values[:, :3], reference.transform(numbers[split.ids]), atol=1e-6)


def test_only_the_training_rows_are_learned_from(tmp_path):
    cfg = mixed_config(tmp_path, "data.select.method=forest", "data.select.k=3")
    before = build_dataset(cfg, "train")
    columns = mixed_columns()
    for name in ("val", "test"):
        for row in build_dataset(cfg, name).ids:
            columns["income"][row], columns["city"][row] = "1000000", "Elsewhere"
    write_csv(tmp_path / "mixed.csv", columns)
    after = build_dataset(cfg, "train")
    assert before is not after, "the file has changed"
    assert after.preprocessing == before.preprocessing
    np.testing.assert_array_equal(after.images.values, before.images.values)
    codes = build_dataset(cfg, "test").images.values[:, -1]
    assert after.preprocessing.names[-1] == "city"
    assert (codes == 0).all(), "a category that training lacks"


def test_unknown_and_missing_values():
    table = Table(
        {"x": np.array([1.0, 2.0, 9.0, np.nan]), "c": texts("b", "a", "b", None), "d": texts("p", "q", "p", "q")}
    )
    fitted = fit(table, "y")
    assert fitted.cardinalities == (4, 3)
    new = Table(
        {"d": texts(None, "new"), "c": texts(None, "new"), "x": np.array([np.nan, np.inf]), "more": texts("", "")}
    )
    rows = fitted.transform(new)
    median = (2.0 - fitted.numbers[0].mean) / fitted.numbers[0].scale
    np.testing.assert_allclose(rows[:, 0], median, rtol=1e-6)
    assert rows[:, 1].tolist() == [3, 0], "missing is a category of its own where training has seen it"
    assert rows[:, 2].tolist() == [0, 0], "and unknown where it has not"


def test_other_columns_at_inference():
    fitted = fit(Table({"x": np.array([1.0, 2.0]), "c": texts("1", "2")}), "y")
    with pytest.raises(UserError, match="lacks columns that the network was trained on: 'c'"):
        fitted.transform(Table({"x": np.zeros(1)}))
    with pytest.raises(UserError, match="column 'x' must hold numbers, but row 2 has 'many'"):
        fitted.transform(Table({"x": texts("1", "many"), "c": texts("1", "1")}))
    as_text = fitted.transform(Table({"x": texts("1", None), "c": texts("1", "2")}))
    as_numbers = fitted.transform(Table({"x": np.array([1.0, np.nan]), "c": np.array([1.0, 2.0])}))
    np.testing.assert_array_equal(as_text, as_numbers)


def test_it_is_saved_with_the_weights_and_gives_the_same_arrays(tmp_path):
    cfg = mixed_config(tmp_path)
    split = build_dataset(cfg, "test")
    save_weights(tmp_path / "model.safetensors", {"w": np.zeros(1, np.float32)}, tabular.Task().metadata(split))
    loaded = from_json(load_weights(tmp_path / "model.safetensors")[1]["preprocessing"])
    assert loaded == split.preprocessing
    rows = call_with_keys(table_file.read_whole, cfg.data).take(split.ids)
    np.testing.assert_array_equal(loaded.transform(rows), split.images.values)


def test_the_rarest_of_too_many_categories_are_unknown():
    many = [f"c{number:05}" for number in range(MOST_CATEGORIES + 5)]
    fitted = fit(Table({"c": texts(*many, *many[5:])}), "y")
    assert fitted.cardinalities == (MOST_CATEGORIES + 1,)
    assert fitted.transform(Table({"c": texts(*many[:6])}))[:, 0].tolist() == [0, 0, 0, 0, 0, 1]


def test_bins_end_at_quantiles_of_the_training_rows():
    values = np.random.default_rng(0).lognormal(size=1000)
    columns = {
        "x": values,
        "few": values.round().clip(0, 3),
        "hour": np.arange(1000) % 24.0,
        "two": (values > 1) * 1.0,
        "one": values * 0,
    }
    columns["close"] = np.where(values > 3, 1e9, values)  # where float32 tells nothing apart
    columns["x"] = np.where(np.arange(1000) < 40, np.nan, values)
    fitted = fit(Table(columns), "y")
    found = dict(zip(fitted.names, fitted.knots, strict=True))
    known = (values[40:] - fitted.numbers[0].mean) / fitted.numbers[0].scale
    np.testing.assert_allclose(found["x"], np.quantile(known, np.arange(17) / 16), rtol=1e-6)
    assert [len(found[name]) for name in ("few", "hour")] == [4, 24]
    assert [found[name] for name in ("two", "one", "close")] == [(), (), ()]
    assert from_json(fitted.to_json()) == fitted
    number, low, width = list_bins(fitted.knots)
    assert number.tolist() == [0] * 16 + [1] * 3 + [2] * 23
    np.testing.assert_allclose(low + width, [*found["x"][1:], *found["few"][1:], *found["hour"][1:]], rtol=1e-6)


def test_a_constant_column_does_no_harm():
    fitted = fit(Table({"x": np.full(4, 7.0)}), "y")
    assert fitted.transform(Table({"x": np.array([7.0, 8.0])}))[:, 0].tolist() == [0, 1]


def test_splits_are_disjoint_stratified_and_repeatable(tmp_path):
    columns = mixed_columns()
    columns["paid"][3] = ""
    path = write_csv(tmp_path / "table.csv", columns)
    splits = [build_dataset(table_config(path), name) for name in ("train", "val", "test")]
    ids = np.concatenate([split.ids for split in splits])
    assert sorted(ids) == [row for row in range(200) if row != 3], "a row without a target is left out"
    assert all(abs(split.class_counts()[1] / len(split) - 1 / 3) < 0.05 for split in splits)
    assert splits[0].classes == ("no", "yes")
    again = build_dataset(table_config(path, "seed=7"), "test")
    assert again.ids.tolist() != splits[2].ids.tolist()


def test_whole_numbers_are_classes_in_their_order(tmp_path):
    columns = {"x": [str(row) for row in range(60)], "y": [str((row % 3) * 5) for row in range(60)]}
    split = build_dataset(table_config(write_csv(tmp_path / "table.csv", columns), target="y"), "train")
    assert split.classes == ("0", "5", "10")
    chosen = OmegaConf.merge(table_config(tmp_path / "table.csv", target="y"), {"data": {"classes": ["0", "10"]}})
    fewer = build_dataset(chosen, "train")
    assert fewer.classes == ("0", "10")
    assert fewer.class_counts().tolist() == [14, 14]


def test_folds_hold_each_row_once(tmp_path):
    folds = [
        build_dataset(mixed_config(tmp_path, "data.folds=4", f"data.fold={fold}"), "val").ids for fold in range(1, 5)
    ]
    rest = build_dataset(mixed_config(tmp_path), "test").ids
    assert sorted(np.concatenate([*folds, rest])) == list(range(200))

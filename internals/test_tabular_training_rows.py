"""Selection of columns, resampling of classes, batches and scores of tables."""

import re
from pathlib import Path

import numpy as np
import pytest

from src.kit.catalog import build_dataset
from src.kit.config.compose import load_config
from src.kit.errors import UserError
from src.kit.tabular.preprocessing import resample
from src.kit.training import load_task
from table_files import mixed_config

tabular, tabular_regression = load_task("tabular"), load_task("tabular_regression")
NUMBER = ("task=tabular_regression",)


@pytest.mark.parametrize("method", ["mutual_information", "anova", "forest"])
def test_noise_is_the_first_column_to_go(tmp_path, method):
    cfg = mixed_config(tmp_path, f"data.select.method={method}", "data.select.k=3")
    split = build_dataset(cfg, "train")
    assert split.preprocessing.names == ("age", "income", "city")
    assert split.preprocessing.cardinalities == (5,)
    assert split.images.shape == (1, 1, 3)


@pytest.mark.parametrize("method", ["mutual_information", "anova", "forest"])
def test_numbers_are_told_by_what_they_depend_on(method):
    split = build_dataset(load_config([*NUMBER, f"data.select.method={method}", "data.select.k=5"]), "train")
    assert split.preprocessing.names == ("MedInc", "AveRooms", "AveOccup", "Latitude", "Longitude")


def test_more_columns_than_there_are(tmp_path):
    with pytest.raises(UserError, match=r"data\.select\.k=5 is more than the 4 columns"):
        build_dataset(mixed_config(tmp_path, "data.select.method=anova", "data.select.k=5"), "train")


@pytest.mark.parametrize(("method", "counts"), [("smote", [93, 93]), ("under", [47, 47]), ("both", [70, 70])])
def test_classes_become_equally_frequent_in_training_only(tmp_path, method, counts):
    plain = build_dataset(mixed_config(tmp_path), "train")
    cfg = mixed_config(tmp_path, f"data.resample={method}")
    split = build_dataset(cfg, "train")
    assert plain.class_counts().tolist() == [93, 47]
    assert split.class_counts().tolist() == counts
    rows = {
        row: (values.tolist(), target)
        for row, values, target in zip(plain.ids, plain.images.values, plain.targets, strict=True)
    }
    kept = split.ids >= 0
    assert kept.all() == (method == "under")
    for row, values, target in zip(split.ids[kept], split.images.values[kept], split.targets[kept], strict=True):
        assert rows[row] == (values.tolist(), target), "the rows that were there are as they were"
    made = split.images.values[~kept]
    lowest = plain.images.values[:, :3].min(axis=0)
    assert np.isin(made[:, 3], plain.images.values[:, 3]).all(), "no category between two others"
    assert (made[:, :3] >= lowest - 1e-5).all(), "between two rows"
    for name in ("val", "test"):
        other, before = build_dataset(cfg, name), build_dataset(mixed_config(tmp_path), name)
        np.testing.assert_array_equal(other.images.values, before.images.values)


def test_smote_of_categories_only_and_of_two_rows():
    codes = np.random.default_rng(0).integers(1, 4, (30, 2)).astype(np.float32)
    inputs, targets, origin = resample(codes, np.array([0] * 28 + [1] * 2), 0, "smote", 0)
    assert np.bincount(targets).tolist() == [28, 28]
    assert np.isin(inputs, [1, 2, 3]).all()
    assert (origin[30:] == -1).all()
    with pytest.raises(UserError, match=r"data\.resample=smote can't interpolate a class with a single training row"):
        resample(codes, np.array([0] * 29 + [1]), 0, "smote", 0)


def test_batches_of_classes(tmp_path):
    cfg = mixed_config(tmp_path, "data.batch_size=16")
    split = build_dataset(cfg, "train")
    loader = tabular.build_loader(cfg, split, "train")
    assert len(loader) == 9
    first, again = list(loader), list(loader)
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(first, again, strict=True))
    loader.set_epoch(1)
    assert not np.array_equal(first[0][0], next(iter(loader))[0])
    inputs, targets = first[0]
    assert (inputs.dtype, inputs.shape, targets.dtype, targets.shape) == (np.float32, (16, 4), np.int64, (16,))
    seen = np.concatenate([inputs for inputs, _ in first])
    assert sorted(map(tuple, seen)) == sorted(map(tuple, split.images.values))
    ranks = [tabular.build_loader(cfg, split, "test", rank, 2) for rank in (0, 1)]
    assert sum(len(targets) for loader in ranks for _, targets in loader) == len(split)


def test_a_sampler_draws_rare_classes_as_often(tmp_path):
    cfg = mixed_config(tmp_path, "data.sampler=oversample", "data.batch_size=16")
    targets = np.concatenate(
        [targets for _, targets in tabular.build_loader(cfg, build_dataset(cfg, "train"), "train")]
    )
    assert abs(targets.mean() - 0.5) < 0.02


def test_batches_of_numbers_and_their_scores():
    cfg = load_config(NUMBER)
    split = build_dataset(cfg, "test")
    kept = []
    for inputs, targets in tabular_regression.build_loader(cfg, split, "test"):
        assert targets.shape == (len(inputs), 3)
        kept += tabular_regression.collect(targets[:, :1], targets)
    predicted, true = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    np.testing.assert_allclose(true, split.targets, rtol=1e-5)
    np.testing.assert_allclose(predicted, split.targets, rtol=1e-5)
    fitted = split.preprocessing
    np.testing.assert_allclose(fitted.decode((split.targets - fitted.target_mean) / fitted.target_scale), split.targets)
    scores = tabular_regression.metrics([(np.array([1.0, 2.0]), np.array([1.0, 4.0]))], ("y",))
    assert scores == pytest.approx({"rmse": 2**0.5, "mae": 1.0, "r2": 1 - 2 / 2.25})
    whole = tabular_regression.evaluate([(np.array([1.0]), np.array([3.0]))], ("y",))
    assert (whole["r2"], whole["max_error"], whole["samples"]) == (0.0, 2.0, 1)


def test_the_task_and_the_target_must_agree(tmp_path):
    cfg = mixed_config(tmp_path, "task=tabular_regression")
    Path(cfg.data.root).unlink()  # said before anything is read
    with pytest.raises(
        UserError,
        match="'paid' of data=table_file holds classes: set task=tabular, not tabular_regression, or set "
        r"data\.target\.kind=number",
    ):
        build_dataset(cfg, "train")
    cfg = load_config(["task=tabular", "data=housing"])
    with pytest.raises(
        UserError, match=r"'MedHouseVal' of data=housing holds numbers: set task=tabular_regression, not tabular\.$"
    ):
        build_dataset(cfg, "train")


def test_an_empty_split_asks_for_rows(tmp_path):
    with pytest.raises(UserError, match=r"The val split of table_file has no sample: .*, add rows, or choose other"):
        build_dataset(mixed_config(tmp_path, "data.val_fraction=0"), "val")


@pytest.mark.parametrize(
    ("key", "off"),
    [
        ("augment=basic", "none"),
        ("mixup_alpha=0.2", 0),
        ("cutmix_alpha=1.0", 0),
        ("sizes=[16, 32]", "null"),
        ("shift=2", "null"),
        ("border=mirror", "black"),
    ],
)
def test_keys_for_images_are_refused(tmp_path, key, off):
    cfg = mixed_config(tmp_path, f"data.{key}")
    with pytest.raises(
        UserError, match=re.escape(f"data.{key} is for images, and data=table_file is a table: set it to {off}.")
    ):
        tabular.build_loader(cfg, build_dataset(cfg, "train"), "train")


def test_a_batch_larger_than_the_training_rows(tmp_path):
    cfg = mixed_config(tmp_path, "data.batch_size=141")
    with pytest.raises(UserError, match=r"data\.batch_size=141 is more than the 140 training samples"):
        tabular.build_loader(cfg, build_dataset(cfg, "train"), "train")


@pytest.mark.parametrize(
    ("name", "shape", "classes"), [("breast_cancer", (397, 30), 2), ("wine", (124, 13), 3), ("housing", (2800, 8), 0)]
)
def test_debug_tables_need_no_network(name, shape, classes):
    task = "tabular" if classes else "tabular_regression"
    split = build_dataset(load_config([f"task={task}", f"data={name}"]), "train")
    assert split.images.values.shape == shape
    assert len(split.classes) == classes
    assert abs(split.images.values.mean(axis=0)).max() < 1e-4
    assert np.allclose(split.images.values.std(axis=0), 1, atol=1e-4)


def test_pictures(tmp_path):
    for task, overrides in ((tabular, ("task=tabular", "data=wine")), (tabular_regression, NUMBER)):
        cfg = load_config(overrides)
        split = build_dataset(cfg, "test")
        kept = []
        for _, targets in task.build_loader(cfg, split, "test"):
            outputs = targets[:, :1] if targets.ndim == 2 else np.eye(3, dtype=np.float32)[targets]
            kept += task.collect(outputs, targets)
        paths = [
            *task.draw_predictions(kept, split, cfg, tmp_path, "test"),
            task.draw_samples(split, np.arange(9), cfg, tmp_path / "rows.png"),
        ]
        assert all(path.stat().st_size > 5000 for path in paths)

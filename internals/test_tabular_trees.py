"""Gradient-boosted trees: equal to scikit-learn's, saved as arrays, a model like others and the baseline of others."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from src.kit.config import load_config
from src.kit.errors import UserError
from src.kit.inference import softmax
from src.kit.run import read_rows
from src.kit.tabular import score_probabilities
from src.kit.tabular_trees import Trees
from src.kit.training import evaluate, find_checkpoint, load_run, train, train_run
from src.kit.training.exports import export_run
from src.kit.weights import load_weights
from table_files import mixed_columns, mixed_config


@pytest.mark.parametrize("outputs", [1, 2, 3])
def test_the_arrays_answer_what_scikit_learn_answers(outputs):
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(400, 5)).astype(np.float32)
    number = inputs[:, 0] + inputs[:, 1] * inputs[:, 2]
    limits = np.quantile(number, np.arange(1, outputs) / outputs)
    targets = number.astype(np.float64) if outputs == 1 else np.digitize(number, limits).astype(np.int64)
    kind = HistGradientBoostingRegressor if outputs == 1 else HistGradientBoostingClassifier

    def expected(rounds: int) -> np.ndarray:
        model = kind(max_iter=rounds, early_stopping=False, random_state=0).fit(inputs, targets)
        sums = model.predict(inputs) if outputs == 1 else model.decision_function(inputs)
        return np.column_stack([np.zeros(400), sums]) if outputs == 2 else sums.reshape(400, -1)

    trees = Trees(outputs, {"max_iter": 12})
    trees.grow(inputs, targets, None, 0)
    np.testing.assert_allclose(trees(inputs), expected(12), atol=1e-12)
    np.testing.assert_allclose(list(trees.staged(inputs))[3], expected(4), atol=1e-12)
    before = len(trees.nodes["value"])
    trees.keep(4)
    np.testing.assert_allclose(trees(inputs), expected(4), atol=1e-12)
    assert len(trees.nodes["value"]) < before / 2


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run of trees on the mixed table."""
    folder = tmp_path_factory.mktemp("trees")
    keys = ["model=trees", "model.iterations=30", "model.min_leaf=5", "tracker=none"]
    return train_run(mixed_config(folder, f"output_dir={(folder / 'runs').as_posix()}", *keys))


def test_a_run_of_trees_is_a_run(run):
    rows = read_rows(run / "metrics.jsonl")
    assert rows[-1]["train/loss"] < rows[0]["train/loss"]
    assert min(row["val/loss"] for row in rows) < 0.5
    scores = json.loads((run / "evaluation-test.json").read_text("utf-8"))
    assert scores["accuracy"] > 0.8
    assert list(scores["importance"])[-1] == "noise" or scores["importance"]["noise"] < 0.05
    assert "beside" not in scores
    arrays, metadata = load_weights(find_checkpoint(run, "best") / "model.safetensors")
    assert {name: array.dtype.kind for name, array in arrays.items()}["threshold"] == "f"
    assert "preprocessing" in metadata
    assert evaluate(run, "test")["accuracy"] == scores["accuracy"]
    assert "rounds" in (run / "model.txt").read_text("utf-8")


def test_rows_are_predicted(run):
    columns = mixed_columns()
    rows = [{name: columns[name][row] or None for name in columns if name != "paid"} for row in range(30)]
    answers = [answer["class"] for answer in load_run(run).predict(rows)]
    assert np.mean([answer == true for answer, true in zip(answers, columns["paid"], strict=False)]) > 0.8


def test_what_trees_cannot_do_is_one_sentence(run, tmp_path):
    with pytest.raises(UserError, match=r"model=trees has no format to export"):
        export_run(run)
    weights = find_checkpoint(run, "best") / "model.safetensors"
    with pytest.raises(UserError, match=r"model=trees starts from nothing: leave model\.pretrained and model\.weights"):
        train_run(mixed_config(tmp_path, "model=trees", f"model.weights={weights}", f"output_dir={tmp_path}/runs"))
    with pytest.raises(UserError, match=r"model=trees trains in one process: leave trainer\.devices=2 out"):
        train_run(mixed_config(tmp_path, "model=trees", "trainer.devices=2", f"output_dir={tmp_path}/runs"))


def test_trees_stand_beside_every_other_model(tmp_path):
    keys = ["task=tabular_regression", "trainer.max_epochs=1", "tracker=none", f"output_dir={tmp_path.as_posix()}"]
    trained = train(load_config(keys))
    beside = trained.metrics["test"]["beside"]["gradient-boosted trees"]
    assert beside["r2"] > 0.85
    assert next(iter(trained.metrics["test"]["importance"])) == "MedInc"
    page = (trained.path / "report.html").read_text("utf-8")
    assert "Beside other models" in page
    assert "Most important columns" in page
    assert f"{beside['r2']:.4f}" in page


@pytest.mark.parametrize("model", ["tabular_mlp", "trees"])
def test_limited_batches_limit_what_is_evaluated(tmp_path, model):
    limits = ["trainer.limit_val_batches=2", "trainer.limit_test_batches=1", "data.batch_size=16"]
    keys = [f"model={model}", "trainer.max_epochs=1", "tracker=none", f"output_dir={tmp_path.as_posix()}"]
    metrics = train(load_config(["task=tabular", *limits, *keys])).metrics
    assert [metrics[split]["samples"] for split in ("val", "test")] == [32, 16]
    assert len(metrics["test"]["importance"]) == 30


def test_scores_of_probabilities_are_scikit_learns():
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 3, 500)
    probabilities = softmax(rng.normal(size=(500, 3)) + np.eye(3)[targets])
    scores = score_probabilities(probabilities, targets)
    assert scores["roc_auc"] == pytest.approx(roc_auc_score(targets, probabilities, multi_class="ovr"))
    each = [average_precision_score(targets == k, probabilities[:, k]) for k in range(3)]
    assert scores["pr_auc"] == pytest.approx(np.mean(each))
    assert scores["log_loss"] == pytest.approx(log_loss(targets, probabilities))
    two = score_probabilities(np.array([[0.9, 0.1], [0.4, 0.6]]), np.array([0, 0]))
    assert set(two) == {"log_loss", "calibration_error"}, "one class has no curve"


def test_the_calibration_error_of_honest_and_of_boasting_probabilities():
    rng = np.random.default_rng(0)
    honest = rng.uniform(0.5, 1, 20_000)
    right = rng.uniform(size=20_000) < honest
    probabilities = np.column_stack([honest, 1 - honest])
    assert score_probabilities(probabilities, np.where(right, 0, 1))["calibration_error"] < 0.02
    sure = np.full((1000, 2), [0.99, 0.01])
    assert score_probabilities(sure, np.arange(1000) % 2)["calibration_error"] == pytest.approx(0.49)

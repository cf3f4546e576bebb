"""The advice follows its rules on curves made by hand, names its evidence, and tells failed runs from finished ones."""

import math

import numpy as np
import pytest

from src.kit.report.advice import advice, rises
from src.kit.training.experiment import load_task


def curve(train: list[float], val: list[float], **columns: list[float]) -> list[dict]:
    rows = [
        {"epoch": number, "train/loss": a, "val/loss": b}
        for number, (a, b) in enumerate(zip(train, val, strict=True), 1)
    ]
    for name, values in columns.items():
        for row, value in zip(rows, values, strict=True):
            row[name if name == "lr" else f"val/{name}"] = value
    return rows


@pytest.mark.parametrize(
    ("train", "val", "verdict"),
    [
        ([2.0, 1.0], [2.0, 1.0], "Too few epochs"),
        ([], [], "Too few epochs"),
        ([2.0, math.nan, 1.0], [2.0, 1.0, 1.0], "Diverged: the loss is not finite in epoch 2"),
        ([2.0, 1.0, 0.5, 0.2, 0.1], [2.0, 1.2, 1.0, 1.2, 1.4], "Over-fitting since epoch 3"),
        ([2.0, 1.98, 1.97, 1.95], [2.0, 1.99, 1.98, 1.97], "Under-fitting"),
        ([2.0, 1.5, 1.0, 0.7], [2.0, 1.5, 1.1, 0.9], "Still learning"),
        ([2.0, 0.2, 0.1, 0.1, 0.1, 0.1], [2.0, 1.0, 0.9, 0.9, 0.9, 0.9], "Over-fitting: at its best"),
        ([2.0, 1.0, 0.5, 0.45, 0.44, 0.44], [2.0, 1.0, 0.55, 0.50, 0.50, 0.50], "Converged"),
    ],
)
def test_advice_on_hand_made_curves(train: list[float], val: list[float], verdict: str) -> None:
    assert advice(curve(train, val)).startswith(verdict)


def levelled(best: int, epochs: int = 150) -> list[float]:
    """A loss that falls to 0.4 in epoch `best` and is flat and a little higher from then on."""
    return [2.0 - 1.6 * number / best if number <= best else 0.41 for number in range(1, epochs + 1)]


@pytest.mark.parametrize(
    ("best", "verdict"), [(114, "Converged: the validation loss was best in epoch 114"), (150, "Still learning")]
)
def test_a_loss_that_has_levelled_out_is_not_still_learning(best: int, verdict: str) -> None:
    assert advice(curve(levelled(best), levelled(best))).startswith(verdict)


@pytest.mark.parametrize(("best", "verdict"), [(114, "Converged: val/map50 was best in epoch 114"), (150, "Still l")])
def test_a_score_that_has_levelled_out_is_not_still_learning(best: int, verdict: str) -> None:
    rows = [{"epoch": number, "val/map50": 1 - loss / 4} for number, loss in enumerate(levelled(best), 1)]
    assert advice(rows).startswith(verdict)


def test_a_schedule_that_ends_flat_by_design_is_not_called_converged() -> None:
    epochs = 30
    rates = [0.1 * (1 + math.cos(math.pi * number / epochs)) / 2 for number in range(1, epochs + 1)]
    loss = [1.4 + math.exp(-number / 3) for number in range(epochs)]
    accuracy = [0.5 - 0.4 * math.exp(-number / 4) for number in range(epochs)]
    said = advice(curve(loss, loss, accuracy=accuracy, lr=rates), {"baseline_accuracy": 0.1, "samples": 1000})
    assert said.startswith("Finished: the validation loss was best in epoch 30 (1.4)")
    assert "(0.500, where an answer that ignores the input scores 0.100)" in said
    assert "The learning rate ended at 0.0% of its peak" in said
    assert "will not help" not in said
    flat = advice(curve(loss, loss, accuracy=accuracy, lr=[0.1] * epochs), {"baseline_accuracy": 0.1, "samples": 1000})
    assert flat.startswith("Converged")


DIGITS = {  # a run of the default project: its rate ends at nothing
    "train": [2.33, 1.87, 1.23, 0.68, 0.34, 0.19, 0.12, 0.092, 0.063, 0.051, 0.041, 0.038, 0.034, 0.033, 0.030],
    "val": [2.25, 1.58, 0.85, 0.42, 0.25, 0.18, 0.13, 0.114, 0.108, 0.090, 0.0823, 0.0790, 0.0742, 0.0755, 0.0741],
    "lr": [1.3e-3, 2e-3, 3e-3, 2.9e-3, 2.7e-3, 2.5e-3, 2.2e-3, 1.9e-3, 1.5e-3, 1.1e-3, 8e-4, 4e-4, 2e-4, 6e-5, 1e-6],
}


def test_a_loss_that_flattened_in_the_last_epochs_is_not_still_learning() -> None:
    assert advice(curve(**DIGITS)).startswith("Finished: the validation loss was best in epoch 15 (0.0741)")
    falling = [*DIGITS["val"][:12], 0.0742, 0.0700, 0.0655]
    assert advice(curve(**(DIGITS | {"val": falling}))).startswith("Still learning: the validation loss kept falling")


def test_an_accuracy_that_rises_slowly_is_still_learning_though_the_loss_is_flat() -> None:
    rng = np.random.default_rng(0)
    accuracy = [0.40 + 0.003 * number + noise for number, noise in enumerate(rng.normal(0, 0.002, 40))]
    assert advice(curve(levelled(5, 40), levelled(5, 40), accuracy=accuracy)).startswith("Still learning: val/accuracy")


@pytest.mark.parametrize(
    ("scores", "baseline", "samples", "train", "verdict"),
    [
        ([0.10, 0.11, 0.10, 0.11, 0.10], {"accuracy": 0.10}, 500, [2.3] * 5, "Failed: val/accuracy was 0.110 at best"),
        ([0.10, 0.11, 0.10, 0.11, 0.10], {"accuracy": 0.10}, 500, [2.3, 1.0, 0.4, 0.1, 0.1], "Failed: val/accuracy"),
        ([0.0, 0.0, 0.0, 0.001, 0.0], {"map50": 0.0}, 50, [9, 8, 8, 8, 8], "Failed: val/map50 was 0.001 at best"),
        ([-0.2, -0.1, -0.05, -0.1, -0.1], {"r2": 0.0}, 50, [1, 0.6, 0.6, 0.6, 0.6], "Failed: val/r2 was -0.050"),
        ([0.50, 0.52, 0.55, 0.52, 0.54], {"accuracy": 0.5}, 100, [0.7] * 5, "Failed"),
        ([0.50, 0.52, 0.55, 0.52, 0.54], {"accuracy": 0.5}, 10_000, [0.7, 0.6, 0.5, 0.5, 0.5], "Converged"),
        ([0.0, 0.0, 0.001, 0.003, 0.006], {"map50": 0.0}, 50, [9, 8, 7, 6, 5], "Not learned yet: val/map50 was 0.006"),
    ],
)
def test_failed_runs_are_told_from_finished_ones(scores, baseline, samples, train, verdict) -> None:
    [name] = baseline
    rows = [{"train/loss": float(loss), f"val/{name}": score} for loss, score in zip(train, scores, strict=True)]
    said = advice(rows, {f"baseline_{name}": baseline[name], "samples": samples})
    assert said.startswith(verdict)
    assert ("by heart" in said) == (train[-1] < train[0] / 2)


def test_rises() -> None:
    noise = np.random.default_rng(1).normal(0, 1, (40, 50))
    assert not rises([0.5] * 10)
    assert sum(rises((100 + row).tolist()) for row in noise) <= 4, "a tenth may be taken for a rise"
    assert all(rises((100 + 0.6 * np.arange(50) + row).tolist()) for row in noise[:, ::-1] / 2)
    assert not rises([1.0, 2.0])


def test_every_task_knows_what_ignoring_the_input_scores() -> None:
    logits, targets = np.zeros((10, 3)), np.array([0, 0, 0, 0, 0, 0, 1, 1, 2, 2])
    assert load_task("classification").baseline([(logits, targets)], "abc") == {"accuracy": 0.6}
    assert load_task("tabular").baseline([(logits, targets)], "abc") == {"accuracy": 0.6}
    assert load_task("tabular_regression").baseline([], "a") == {"r2": 0.0}
    assert load_task("detection").baseline([], "a") == {"map50": 0.0}
    assert load_task("instance_segmentation").baseline([], "a") == {"mask_map50": 0.0}
    task = load_task("segmentation")
    maps = np.zeros((2, 4, 4), np.uint8)
    maps[:, 0], maps[:, 1, 0] = 1, 255
    most = np.zeros((2, 3, 4, 4), np.float32)
    most[:, 0] = 1
    collected = task.collect(most, maps)
    assert task.baseline(collected, "abc")["miou"] == pytest.approx(task.metrics(collected, "abc")["miou"]), "by hand"

"""The advice follows its rules on curves made by hand."""

import math

import pytest

from src.kit.report.reports import advice


def curve(train: list[float], val: list[float]) -> list[dict]:
    return [
        {"epoch": number, "train/loss": a, "val/loss": b}
        for number, (a, b) in enumerate(zip(train, val, strict=True), 1)
    ]


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

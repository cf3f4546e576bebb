"""The PyTorch loss against numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from src.kit.errors import UserError
from src.kit.training import build_loss


def config(smoothing: float, name: str = "cross_entropy"):
    keys = {"name": name, "label_smoothing": smoothing, "class_weights": "none"}
    return OmegaConf.create({"framework": "lightning", "loss": keys})


@pytest.mark.parametrize(
    ("smoothing", "expected"), [(0.0, math.log(4 / 3)), (0.2, 0.9 * math.log(4 / 3) + 0.1 * math.log(4))]
)
def test_loss_by_hand(smoothing: float, expected: float) -> None:
    logits = torch.tensor([[math.log(3.0), 0.0]], requires_grad=True)  # probabilities 3/4 and 1/4
    loss = build_loss(config(smoothing))(logits, torch.tensor([0]))
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    loss.backward()
    assert logits.grad is not None


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, 2.0])
def test_smoothing_outside_its_range_is_refused(smoothing: float) -> None:
    with pytest.raises(UserError, match="at least 0 and below 1"):
        build_loss(config(smoothing))


def test_unknown_loss_names_the_known_ones() -> None:
    with pytest.raises(UserError, match="Did you mean cross_entropy"):
        build_loss(config(0.0, "cross_entrpy"))


def test_weights_of_classes_are_exact_under_autocast() -> None:
    cfg = config(0.1)
    cfg.loss.class_weights = "balanced"
    loss = build_loss(cfg, class_counts=np.array([3, 50, 7]))
    logits, targets = torch.randn(64, 3, generator=torch.Generator().manual_seed(0)), torch.arange(64) % 3
    with torch.autocast("cpu", torch.bfloat16):
        half = loss(logits, targets)
    torch.testing.assert_close(half, loss(logits, targets), rtol=1e-6, atol=0)

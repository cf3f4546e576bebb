"""The losses of pixels in PyTorch, by hand."""

import math

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from src.kit.training.networks import build_loss


def build(cross_entropy=0.0, dice=0.0, focal=0.0, gamma=2.0, class_weights="none", counts=None):
    keys = {"name": "pixels", "cross_entropy": cross_entropy, "dice": dice, "focal": focal, "gamma": gamma}
    keys["class_weights"] = class_weights
    return build_loss(OmegaConf.create({"framework": "lightning", "loss": keys}), counts)


def logits(*shares: tuple[float, ...]) -> torch.Tensor:
    """(1, K, 1, W) whose softmax is `shares`, one tuple for each of the W pixels."""
    return torch.tensor(shares).log().T.reshape(1, len(shares[0]), 1, len(shares))


def test_each_part_by_hand():
    pixels = logits((0.7, 0.2, 0.1), (0.5, 0.3, 0.2), (0.1, 0.1, 0.8))
    true = torch.tensor([[[0, 1, 255]]], dtype=torch.uint8)
    assert build(cross_entropy=1)(pixels, true).item() == pytest.approx(-(math.log(0.7) + math.log(0.3)) / 2, abs=1e-5)
    focal = -(0.3**2 * math.log(0.7) + 0.7**2 * math.log(0.3)) / 2
    assert build(focal=1)(pixels, true).item() == pytest.approx(focal, abs=1e-5)
    # class 2 does not occur; the third pixel is ignored
    first, second = 1 - 2 * 0.7 / (1.2 + 1), 1 - 2 * 0.3 / (0.5 + 1)
    assert build(dice=1)(pixels, true).item() == pytest.approx((first + second) / 2, abs=1e-5)
    total = build(cross_entropy=2, dice=3, focal=4)(pixels, true).item()
    parts = [build(cross_entropy=2), build(dice=3), build(focal=4)]
    assert total == pytest.approx(sum(part(pixels, true).item() for part in parts), abs=1e-5)


@pytest.mark.parametrize(
    ("method", "weights"), [("balanced", (4 / 6, 4 / 2)), ("log", (1 / math.log(1.77), 1 / math.log(1.27)))]
)
def test_pixels_of_rare_classes_weigh_more(method, weights):
    pixels = logits((0.7, 0.3), (0.6, 0.4), (0.5, 0.5))
    true, counts = torch.tensor([[[0, 1, 255]]], dtype=torch.uint8), np.array([3, 1])
    expected = -(weights[0] * math.log(0.7) + weights[1] * math.log(0.4)) / sum(weights)
    loss = build(cross_entropy=1, class_weights=method, counts=counts)(pixels, true)
    assert loss.item() == pytest.approx(expected, abs=1e-5)


def test_ignored_pixels_get_no_gradient_and_all_ignored_cost_nothing():
    pixels = torch.randn(2, 4, 3, 3, requires_grad=True)
    true = torch.zeros(2, 3, 3, dtype=torch.uint8)
    true[:, 1] = 255
    loss = build(1, 1, 1)
    loss(pixels, true).backward()
    assert not pixels.grad[:, :, 1].any()
    assert pixels.grad[:, :, [0, 2]].all()
    pixels.grad = None
    nothing = loss(pixels, torch.full_like(true, 255))
    nothing.backward()
    assert nothing.item() == 0
    assert not pixels.grad.any()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_a_sure_pixel_has_a_finite_gradient(gamma):
    pixels = torch.tensor([200.0, -200.0]).reshape(1, 2, 1, 1).requires_grad_()
    build(1, 1, 1, gamma)(pixels, torch.zeros(1, 1, 1, dtype=torch.uint8)).backward()
    assert torch.isfinite(pixels.grad).all()


def test_focal_without_gamma_is_cross_entropy():
    pixels, true = torch.randn(2, 3, 4, 4), torch.tensor(np.random.default_rng(0).integers(0, 3, (2, 4, 4), np.uint8))
    assert build(focal=1, gamma=0.0)(pixels, true).item() == pytest.approx(build(1)(pixels, true).item(), rel=1e-5)
    expected = torch.nn.functional.cross_entropy(pixels, true.long()).item()
    assert build(1)(pixels, true).item() == pytest.approx(expected, rel=1e-5)

"""Both frameworks give the loss of the formula, and the same gradient."""

import re

import numpy as np
import paddle
import pytest
import torch
from omegaconf import OmegaConf

from src.kit.errors import UserError
from src.kit.inference import softmax
from src.kit.training import build_loss, weigh_classes

COUNTS = np.array([500, 80, 7, 1, 0])


def config(name: str = "cross_entropy", smoothing: float = 0.0, weights: str = "none", gamma: float = 2.0):
    keys = {"name": name, "file": "cross_entropy", "label_smoothing": smoothing, "class_weights": weights, "beta": 0.99}
    keys["gamma"] = gamma if name == "focal" else 0.0
    return OmegaConf.create({"loss": keys})


def formula(cfg, logits: np.ndarray, shares: np.ndarray) -> float:
    """The mean of -w t (1 - p)^gamma log p, in float64."""
    p = softmax(logits.astype(np.float64))
    weights = weigh_classes(cfg.loss.class_weights, COUNTS, cfg.loss.beta)
    weights = np.ones(len(COUNTS)) if weights is None else weights.astype(np.float64)
    smoothed = shares * (1 - cfg.loss.label_smoothing) + cfg.loss.label_smoothing / len(COUNTS)
    return float(-(weights * smoothed * (1 - p) ** cfg.loss.gamma * np.log(p)).sum() / (weights * shares).sum())


def losses(cfg, logits: np.ndarray, targets: np.ndarray) -> tuple[float, float, np.ndarray, np.ndarray]:
    """Loss and gradient in both frameworks."""
    ours = torch.tensor(logits, requires_grad=True)
    first = build_loss(OmegaConf.merge(cfg, {"framework": "lightning"}), COUNTS)(ours, torch.tensor(targets))
    first.backward()
    theirs = paddle.to_tensor(logits, stop_gradient=False)
    second = build_loss(OmegaConf.merge(cfg, {"framework": "paddle"}), COUNTS)(theirs, paddle.to_tensor(targets))
    second.backward()
    assert second.shape == []
    return first.item(), second.item(), ours.grad.numpy(), theirs.grad.numpy()


FRAMEWORKS = [("lightning", torch.zeros), ("paddle", paddle.zeros)]


@pytest.mark.parametrize(("framework", "make"), FRAMEWORKS)
@pytest.mark.parametrize(
    ("name", "shape", "target", "wanted"),
    [
        ("cross_entropy", [2, 4], [2], "5"),
        ("cross_entropy", [2, 6], [2], "5"),
        ("cross_entropy", [2, 5, 1, 1], [2], "5"),
        ("cross_entropy", [], [2], "5"),
        ("mse", [2, 3], [2, 3], "1"),
        ("mse", [2], [2, 3], "1"),
        ("pixels", [2, 4, 8, 9], [2, 8, 9], "5, 8, 9"),
        ("pixels", [2, 6, 8, 9], [2, 8, 9], "5, 8, 9"),
        ("pixels", [2, 5, 4, 4], [2, 8, 9], "5, 8, 9"),
        ("pixels", [2, 5], [2, 8, 9], "5, 8, 9"),
    ],
)
def test_outputs_of_another_shape_than_the_task_needs_are_refused(framework, make, name, shape, target, wanted):
    cfg = config() if name == "cross_entropy" else OmegaConf.create({"loss": {"name": name}})
    loss = build_loss(OmegaConf.merge(cfg, {"framework": framework}), COUNTS)
    found = re.escape(f"({', '.join(map(str, ['batch', *shape[1:]]))})")
    with pytest.raises(
        UserError, match=rf"output is {found} and has to be \(batch, {wanted}\): .* choose another model"
    ):
        loss(make(shape), make(target))
    with pytest.raises(UserError, match="output is a tuple and has to be"):
        loss((make(shape), make(shape)), make(target))


@pytest.mark.parametrize(("framework", "make"), FRAMEWORKS)
def test_a_detector_without_the_maps_or_losses_that_its_loss_takes_is_told(framework, make):
    loss = build_loss(OmegaConf.create({"framework": framework, "loss": {"name": "boxes"}}), COUNTS)
    with pytest.raises(UserError, match=r"takes two heads .* list of 3 maps: return them, or choose loss=network"):
        loss(make([2, 69, 8, 8]), None, None, None)
    few = [make([2, 68, side, side]) for side in (8, 4, 2)]
    with pytest.raises(UserError, match=r"output is \(batch, 68, 8, 8\) and has to be \(batch, 69, any, any\)"):
        loss((few, few), None, None, None)
    own = build_loss(OmegaConf.create({"framework": framework, "loss": {"name": "network"}}), COUNTS)
    with pytest.raises(UserError, match="its losses in one tensor, not in a dict: stack them"):
        own({"loss_classifier": make([])})


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("weights", ["none", "balanced", "effective"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("name", "gamma"), [("cross_entropy", 0.0), ("focal", 0.5), ("focal", 2.0)])
def test_both_give_the_formulas_value_and_the_same_gradient(name, gamma, smoothing, weights, soft):
    random = np.random.default_rng(0)
    logits = random.normal(scale=3, size=(64, 5)).astype(np.float32)
    targets = random.integers(0, 5, 64)
    shares = np.eye(5, dtype=np.float32)[targets]
    if soft:  # as MixUp makes them
        part = random.random((64, 1), np.float32)
        targets = shares = part * shares + (1 - part) * shares[::-1]
    cfg = config(name, smoothing, weights, gamma)
    first, second, ours, theirs = losses(cfg, logits, targets)
    assert first == pytest.approx(formula(cfg, logits, shares), rel=1e-5)
    assert second == pytest.approx(first, rel=1e-5)
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(ours).max())


@pytest.mark.parametrize("name", ["cross_entropy", "focal"])
@pytest.mark.parametrize("weights", ["none", "effective"])
def test_a_class_number_and_its_full_share_are_the_same(name, weights):
    logits = np.random.default_rng(1).normal(size=(16, 5)).astype(np.float32)
    targets = np.arange(16) % 5
    numbers = losses(config(name, 0.1, weights), logits, targets)
    shares = losses(config(name, 0.1, weights), logits, np.eye(5, dtype=np.float32)[targets])
    assert numbers[:2] == pytest.approx(shares[:2], rel=1e-6)


def test_a_focal_loss_without_gamma_is_cross_entropy():
    logits, targets = np.random.default_rng(2).normal(size=(8, 5)).astype(np.float32), np.arange(8) % 5
    focal, plain = losses(config("focal", gamma=0.0), logits, targets), losses(config(), logits, targets)
    assert focal[:2] == pytest.approx(plain[:2])


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_a_sure_answer_has_a_finite_gradient(gamma):
    logits = np.array([[200.0, 0, 0, 0, 0], [-200.0, 0, 0, 0, 0]], np.float32)
    for gradient in losses(config("focal", gamma=gamma), logits, np.array([0, 0]))[2:]:
        assert np.isfinite(gradient).all()
        assert np.abs(gradient[1]).max() > 0.1, "a wrong answer still counts"


def test_half_precision_logits_are_weighed_in_float32():
    logits = np.random.default_rng(3).normal(size=(32, 5)).astype(np.float32)
    targets = np.arange(32) % 5
    cfg = config("focal", weights="balanced")
    full = losses(cfg, logits, targets)[0]
    ours = build_loss(OmegaConf.merge(cfg, {"framework": "lightning"}), COUNTS)
    half = ours(torch.tensor(logits).bfloat16(), torch.tensor(targets))
    theirs = build_loss(OmegaConf.merge(cfg, {"framework": "paddle"}), COUNTS)
    other = theirs(paddle.to_tensor(logits).astype("bfloat16"), paddle.to_tensor(targets))
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(full, rel=0.02)
    assert other.item() == pytest.approx(half.item(), rel=1e-5)


def test_weights_are_those_of_their_papers():
    balanced = weigh_classes("balanced", COUNTS)
    assert balanced[:4] == pytest.approx(588 / (4 * COUNTS[:4]))  # scikit-learn's n / (K n_k), of the classes there are
    effective = weigh_classes("effective", COUNTS, 0.99)
    assert effective[0] / effective[3] == pytest.approx((1 - 0.99) / (1 - 0.99**500))
    assert effective[:4].mean() == pytest.approx(1)
    assert balanced[4] == effective[4] == 1, "a class without samples"
    assert weigh_classes("none", COUNTS) is None


def test_balanced_weights_are_scikit_learns():
    from sklearn.utils.class_weight import compute_class_weight

    targets = np.repeat(np.arange(4), COUNTS[:4])
    expected = compute_class_weight("balanced", classes=np.arange(4), y=targets)
    assert weigh_classes("balanced", COUNTS[:4]) == pytest.approx(expected)


def test_a_negative_gamma_is_refused():
    with pytest.raises(UserError, match=r"loss\.gamma must be a number of at least 0, not -1"):
        build_loss(OmegaConf.merge(config("focal", gamma=-1.0), {"framework": "lightning"}))

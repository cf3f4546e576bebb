"""YOLOv10's assignment and losses give the same values and gradients in both frameworks."""

from itertools import chain

import numpy as np
import paddle
import pytest
import torch
from omegaconf import OmegaConf

from src.kit.training.networks import build_loss
from src.tasks.losses.lightning.detection import boxes as lightning
from src.tasks.losses.paddle.detection import boxes as theirs

KEYS = {"loss": {"name": "boxes", "box": 7.5, "score": 0.5, "distance": 1.5}}
CLASSES = 5


def batch(objects: list[list[int]], seed: int = 0):
    """Levels of two heads, and as many objects of these kinds (1 object, 2 crowd, 0 padding) for each image."""
    random = np.random.default_rng(seed)
    shape = (len(objects), len(objects[0]))
    heads = [
        [random.normal(size=(shape[0], 64 + CLASSES, side, side)).astype(np.float32) for side in (8, 4, 2)]
        for _ in range(2)
    ]
    corner, size = random.uniform(-5, 40, (*shape, 2)), random.uniform(4, 30, (*shape, 2))
    boxes = np.concatenate([corner, corner + size], axis=2).clip(0, 64).astype(np.float32)
    return heads, random.integers(0, CLASSES, shape), boxes, np.array(objects, np.uint8).reshape(shape)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    "objects",
    [
        [[1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]],
        [[1, 2, 1], [2, 2, 0]],
        [[2], [2]],
        [[0, 0], [0, 0]],
        [[], []],
    ],
    ids=["some", "some crowds", "crowds only", "padding only", "none"],
)
def test_loss_and_gradients_are_the_same(objects, seed):
    heads, *arrays = batch(objects, seed)
    ours = [[torch.tensor(level, requires_grad=True) for level in head] for head in heads]
    first = build_loss(OmegaConf.create({"framework": "lightning", **KEYS}))(ours, *map(torch.tensor, arrays))
    first.backward()
    others = [[paddle.to_tensor(level, stop_gradient=False) for level in head] for head in heads]
    second = build_loss(OmegaConf.create({"framework": "paddle", **KEYS}))(others, *map(paddle.to_tensor, arrays))
    second.backward()
    assert first.item() > 1
    assert second.item() == pytest.approx(first.item(), rel=1e-4)
    for one, other in zip(chain(*ours), chain(*others), strict=True):
        scale = np.abs(one.grad.numpy()).max()
        np.testing.assert_allclose(one.grad.numpy(), other.grad.numpy(), atol=1e-3 * scale)
        assert np.isfinite(one.grad.numpy()).all()


@pytest.mark.parametrize("count", [1, 10, 999])
def test_cells_are_assigned_alike(count):
    random = np.random.default_rng(2)
    scores = random.random((2, 80, CLASSES), np.float32)
    points = random.uniform(0, 64, (80, 2)).astype(np.float32)
    reach = random.uniform(2, 30, (2, 80, 4)).astype(np.float32)
    reach[1] *= 20  # which overlap the objects by a hundredth
    boxes = np.concatenate([points - reach[..., :2], points + reach[..., 2:]], axis=2)
    _, labels, true, kinds = batch([[1, 1, 1, 1], [1, 2, 1, 0]], 3)
    arrays = (scores, boxes, points, labels, true, kinds == 1)
    owner, target = lightning.assign(*map(torch.tensor, arrays), (count,))
    other, other_target = theirs.assign(*map(paddle.to_tensor, arrays), (count,))
    assert (owner >= 0).sum() > 3
    assert np.array_equal(owner.numpy(), other.numpy())
    np.testing.assert_allclose(target.numpy(), other_target.numpy(), atol=1e-5)


def test_overlaps_and_distributions_are_the_same():
    random = np.random.default_rng(4)
    corner, size = random.uniform(0, 20, (2, 40, 2)), random.uniform(0.1, 20, (2, 40, 2))
    one, other = np.concatenate([corner, corner + size], axis=2).astype(np.float32)
    ours = lightning.complete_iou(torch.tensor(one), torch.tensor(other)).numpy()
    np.testing.assert_allclose(ours, theirs.complete_iou(paddle.to_tensor(one), paddle.to_tensor(other)), atol=1e-5)
    bins, distances = random.normal(size=(40, 4, 16)).astype(np.float32), random.uniform(-2, 18, (40, 4))
    distances = distances.astype(np.float32)
    ours = lightning.distribution_loss(torch.tensor(bins), torch.tensor(distances)).numpy()
    found = theirs.distribution_loss(paddle.to_tensor(bins), paddle.to_tensor(distances))
    np.testing.assert_allclose(ours, found, atol=1e-4)

"""YOLOv10: the same NumPy weights are the same network in both frameworks."""

import numpy as np
import paddle
import pytest
import torch

import src.kit.lightning as lightning_kit
import src.kit.paddle as paddle_kit
from redrawn import redrawn
from src.models.detection.yolov10_sizes import SIZES
from src.models.lightning.detection import yolov10 as lightning
from src.models.paddle.detection import yolov10 as theirs


def both(size: str, classes: int, channels: int):
    """The network in PyTorch and in Paddle with the same weights, redrawn so that the outputs are near 1."""
    first = lightning.build(size=size, classes=classes, channels=channels, image_size=64)
    second = theirs.build(size=size, classes=classes, channels=channels, image_size=64)
    arrays = redrawn(lightning_kit.weights_to_numpy(first))
    lightning_kit.weights_from_numpy(first, arrays)
    paddle_kit.weights_from_numpy(second, arrays)
    return first, second


@pytest.mark.parametrize("size", SIZES)
def test_weights_have_the_same_names_and_shapes(size):
    with torch.device("meta"):
        first = lightning.build(size=size, classes=80, channels=3, image_size=640).state_dict()
    shapes = {name: tuple(array.shape) for name, array in first.items() if not name.endswith("num_batches_tracked")}
    second = paddle_kit.weights_to_numpy(theirs.build(size=size, classes=80, channels=3, image_size=640))
    assert {name: array.shape for name, array in second.items()} == shapes
    assert list(second) == list(shapes)


@pytest.mark.parametrize(("size", "classes", "channels"), [("n", 3, 3), ("n", 1, 1), ("b", 2, 3)])
def test_the_same_weights_give_the_same_outputs(size, classes, channels):
    first, second = both(size, classes, channels)
    images = np.random.default_rng(1).standard_normal((2, channels, 64, 96), dtype=np.float32)
    first.eval()
    second.eval()
    with torch.no_grad(), paddle.no_grad():
        a, b = first(torch.tensor(images)).numpy(), second(paddle.to_tensor(images)).numpy()
    assert a.shape == b.shape == (2, 126, 6)
    np.testing.assert_allclose(a[..., 4], b[..., 4], atol=1e-4)
    # the order of equally sure rows is free
    apart = np.abs(a[:, :, None] - b[:, None]).max(axis=3)  # of each of our rows from each of theirs
    assert apart.min(axis=2).max() < 0.05
    assert apart.min(axis=1).max() < 0.05
    first.train()
    second.train()
    with torch.no_grad(), paddle.no_grad():
        levels, others = first(torch.tensor(images)), second(paddle.to_tensor(images))
    for one, other in zip([*levels[0], *levels[1]], [*others[0], *others[1]], strict=True):
        assert one.std() > 0.1
        np.testing.assert_allclose(one.numpy(), other.numpy(), atol=5e-3, rtol=5e-3)

"""YOLOv10 in Paddle: its outputs, and the network that inference uses."""

import numpy as np
import paddle
import pytest

from redrawn import redrawn
from src.kit.detection_paddle import flatten_levels, fold_for_inference
from src.kit.errors import UserError
from src.kit.paddle import weights_from_numpy, weights_to_numpy
from src.models.paddle.detection import yolov10


def lively(network: paddle.nn.Layer) -> paddle.nn.Layer:
    """The network with redrawn weights."""
    weights_from_numpy(network, redrawn(weights_to_numpy(network)))
    return network


@pytest.fixture(scope="module")
def images() -> paddle.Tensor:
    return paddle.to_tensor(np.random.default_rng(1).standard_normal((2, 3, 64, 64), dtype=np.float32))


@pytest.mark.parametrize("size", ["n", "m"])  # with a large kernel and without
def test_folding_changes_no_output_and_not_the_network_itself(size, images):
    network = lively(yolov10.build(size=size, classes=3, channels=3, image_size=64))
    network.eval()
    before = weights_to_numpy(network)
    with paddle.no_grad():
        whole = flatten_levels([head(f) for head, f in zip(network.one_to_one, network.features(images), strict=True)])
        fused = fold_for_inference(network)
        less = flatten_levels([head(f) for head, f in zip(fused.one_to_one, fused.features(images), strict=True)])
        np.testing.assert_allclose(fused(images)[..., 4].numpy(), network(images)[..., 4].numpy(), atol=1e-4)
    for one, other in zip(whole, less, strict=True):
        assert one.std() > 0.1
        np.testing.assert_allclose(one.numpy(), other.numpy(), atol=2e-3, rtol=1e-3)
    assert not any(isinstance(layer, paddle.nn.BatchNorm2D) for layer in fused.sublayers())
    after = weights_to_numpy(network)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_every_parameter_learns_and_the_second_head_leaves_the_features_alone(images):
    network = lively(yolov10.build(classes=3, channels=3, image_size=64))
    network.train()
    many, one = network(images)
    sum((level**2).sum() for level in one).backward()
    learning = {name.split(".")[0] for name, each in network.named_parameters() if each.grad is not None}
    assert learning == {"one_to_one"}
    sum((level**2).sum() for level in many).backward()
    trained = [(name, each) for name, each in network.named_parameters() if not each.stop_gradient]
    assert not [name for name, each in trained if each.grad is None or not each.grad.any()]


@pytest.mark.parametrize(("classes", "channels"), [(1, 1), (200, 4)])
def test_any_number_of_classes_and_channels_works(classes, channels):
    network = yolov10.build(classes=classes, channels=channels, image_size=32)
    network.eval()
    with paddle.no_grad():
        rows = network(paddle.zeros([1, channels, 32, 32])).numpy()
    assert rows.shape == (1, 21, 6)
    assert rows[..., 5].max() < classes
    assert rows[..., 4].max() < 0.2, "an untrained network claims nothing"


def test_a_size_that_32_does_not_divide_is_one_sentence():
    with pytest.raises(UserError, match=r"size that 32 divides, not of 100 pixels: use 96\."):
        yolov10.build(classes=2, channels=3, image_size=100, size="s")
    network = yolov10.build(classes=2, channels=3, image_size=64)
    network.train()
    with pytest.raises(UserError, match="not of 72 pixels"):
        network(paddle.zeros([2, 3, 72, 72]))

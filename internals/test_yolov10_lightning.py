"""YOLOv10 in PyTorch: its size, its outputs, and the network that inference uses."""

import copy

import numpy as np
import pytest
import torch

from redrawn import redrawn
from src.kit.detection_lightning import cell_centres, decode_boxes, flatten_levels, fold_for_inference, top_detections
from src.kit.errors import UserError
from src.kit.lightning import weights_from_numpy, weights_to_numpy
from src.models.detection.yolov10_sizes import SIZES
from src.models.lightning.detection import yolov10

# millions, of 80 classes: table 1 of arXiv 2405.14458
PARAMETERS = {"n": 2.3, "s": 7.2, "m": 15.4, "b": 19.1, "l": 24.4, "x": 29.5}


def lively(network: torch.nn.Module) -> torch.nn.Module:
    """The network with redrawn weights."""
    weights_from_numpy(network, redrawn(weights_to_numpy(network)))
    return network


@pytest.fixture(scope="module")
def network() -> yolov10.YOLOv10:
    return lively(yolov10.build(classes=3, channels=3, image_size=64))


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.tensor(np.random.default_rng(1).standard_normal((2, 3, 64, 64), dtype=np.float32))


@pytest.mark.parametrize("size", SIZES)
def test_the_parameters_are_as_many_as_the_papers(size):
    with torch.device("meta"):
        fused = fold_for_inference(yolov10.build(size=size, classes=80, channels=3, image_size=640))
    count = sum(parameter.numel() for parameter in fused.parameters()) / 1e6
    assert count == pytest.approx(PARAMETERS[size], rel=0.02)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in fused.modules())


@pytest.mark.parametrize("size", ["n", "m"])  # with a large kernel and without
def test_folding_changes_no_output_and_not_the_network_itself(size, images):
    network = lively(yolov10.build(size=size, classes=3, channels=3, image_size=64)).eval()
    before = weights_to_numpy(network)
    with torch.no_grad():
        whole = flatten_levels([head(f) for head, f in zip(network.one_to_one, network.features(images), strict=True)])
        fused = fold_for_inference(network)
        less = flatten_levels([head(f) for head, f in zip(fused.one_to_one, fused.features(images), strict=True)])
        torch.testing.assert_close(fused(images)[..., 4], network(images)[..., 4], atol=1e-4, rtol=0)
    for one, other in zip(whole, less, strict=True):
        assert one.std() > 0.1
        torch.testing.assert_close(one, other, atol=2e-3, rtol=1e-3)
    after = weights_to_numpy(network)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_training_gives_both_heads_levels_and_evaluation_boxes(network, images):
    many, one = network.train()(images)
    shapes = [(2, 64 + 3, side, side) for side in (8, 4, 2)]
    assert [tuple(level.shape) for level in many] == [tuple(level.shape) for level in one] == shapes
    with torch.no_grad():
        rows = network.eval()(images)
    assert rows.shape == (2, 84, 6), "one for each of the cells, since there are fewer than 300"
    assert (rows[..., 4].diff(dim=1) <= 0).all(), "most confident first"
    assert ((rows[..., 4] > 0) & (rows[..., 4] < 1)).all()
    assert set(rows[..., 5].unique().tolist()) <= {0.0, 1.0, 2.0}
    assert (rows[..., 2:4] > rows[..., :2]).all()


def test_a_large_image_gives_300_rows(network):
    with torch.no_grad():
        assert network.eval()(torch.zeros(1, 3, 160, 128)).shape == (1, 300, 6)


def test_every_parameter_learns_and_the_second_head_leaves_the_features_alone(network, images):
    network = copy.deepcopy(network).train()
    many, one = network(images)
    sum((level**2).sum() for level in one).backward()
    learning = {name.split(".")[0] for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert learning == {"one_to_one"}
    sum((level**2).sum() for level in many).backward()
    assert not [name for name, each in network.named_parameters() if each.grad is None or not each.grad.any()]


@pytest.mark.parametrize(("classes", "channels"), [(1, 1), (1, 3), (200, 4)])
def test_any_number_of_classes_and_channels_works(classes, channels):
    network = yolov10.build(classes=classes, channels=channels, image_size=32).eval()
    with torch.no_grad():
        rows = network(torch.zeros(1, channels, 32, 32))
    assert rows.shape == (1, 21, 6)
    assert rows[..., 5].max() < classes
    assert rows[..., 4].max() < 0.2, "an untrained network claims nothing"


def test_a_size_that_32_does_not_divide_is_one_sentence(network):
    with pytest.raises(UserError, match=r"size that 32 divides, not of 100 pixels: use 96\."):
        yolov10.build(classes=2, channels=3, image_size=100, size="s")
    with pytest.raises(UserError, match=r"not of 8 pixels: use 32\."):
        yolov10.build(classes=2, channels=3, image_size=8, size="s")
    with pytest.raises(UserError, match="not of 72 pixels"):
        network.train()(torch.zeros(2, 3, 72, 72))


def test_boxes_lie_around_their_cells_by_the_expected_distances():
    levels = [torch.zeros(1, 66, side, side) for side in (4, 2, 1)]
    points, strides = cell_centres(levels)
    assert points[:2].tolist() == [[4, 4], [12, 4]]
    assert points[4].tolist() == [4, 12]
    assert points[16:18].tolist() == [[8, 8], [24, 8]]
    assert strides[[0, 16, 20], 0].tolist() == [8, 16, 32]
    bins = torch.full((1, 21, 4, 16), -100.0)
    for side, place in enumerate((1, 0, 2, 3)):  # left, top, right, bottom in cells
        bins[..., side, place] = 100
    bins[0, 20, 0, :] = 0  # evenly spread: 7.5 cells to the left
    boxes = decode_boxes(bins, points, strides)
    assert boxes[0, 0].tolist() == pytest.approx([-4, 4, 20, 28])
    assert boxes[0, 20].tolist() == pytest.approx([16 - 7.5 * 32, 16, 80, 112])


def test_the_most_confident_pairs_of_cell_and_class_come_first():
    boxes = torch.arange(12.0).reshape(1, 3, 4)
    logits = torch.tensor([[[0.0, 3.0], [2.0, -5.0], [1.0, 2.5]]])
    rows = top_detections(boxes, logits, 3)[0]
    assert rows[:, 5].tolist() == [1, 1, 0]
    assert rows[:, :4].tolist() == [boxes[0, 0].tolist(), boxes[0, 2].tolist(), boxes[0, 1].tolist()]
    assert rows[:, 4].tolist() == pytest.approx(torch.tensor([3.0, 2.5, 2.0]).sigmoid().tolist())

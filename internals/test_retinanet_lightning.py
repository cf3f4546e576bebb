"""torchvision's RetinaNet behind the interface of the task detection."""

import numpy as np
import pytest
import torch

from src.models.lightning.detection.retinanet import RetinaNet, build

BOXES = torch.tensor([[[4.0, 4, 40, 50], [0, 0, 0, 0]], [[0, 0, 64, 64], [30, 10, 60, 40]]])
LABELS = torch.tensor([[2, 0], [0, 1]])
KINDS = torch.tensor([[1, 0], [2, 1]], dtype=torch.uint8)


@pytest.fixture
def network() -> RetinaNet:
    torch.manual_seed(0)
    return build(classes=3, channels=3, image_size=64)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.tensor(np.random.default_rng(0).standard_normal((2, 3, 64, 64), dtype=np.float32))


def test_a_step_teaches_every_parameter(network, images):
    losses = network(images, LABELS, BOXES, KINDS)
    assert losses.shape == (2,)
    assert (losses > 0).all()
    losses.sum().backward()
    assert not [name for name, each in network.named_parameters() if each.grad is None or not each.grad.any()]


def test_padding_and_crowds_are_not_learned(network, images):
    alone = network(images, LABELS, BOXES, KINDS)
    other = BOXES.clone()
    other[0, 1], other[1, 0] = torch.tensor([1.0, 1, 9, 9]), torch.tensor([5.0, 5, 60, 60])
    torch.testing.assert_close(network(images, LABELS, other, KINDS), alone)
    nothing = network(images, LABELS[:, :0], BOXES[:, :0], KINDS[:, :0])
    assert torch.isfinite(nothing).all()
    assert nothing[1] == 0


@pytest.mark.parametrize("channels", [1, 3])
def test_evaluation_gives_padded_rows_of_box_score_and_class(channels):
    network = build(classes=3, channels=channels, image_size=64).eval()
    torch.nn.init.normal_(network.detector.head.classification_head.cls_logits.weight, std=0.3)
    with torch.no_grad():
        rows = network(torch.randn(2, channels, 64, 64))
    assert rows.shape == (2, 300, 6)
    for image in rows:
        found = image[image[:, 4] > 0]
        assert len(found) > 0
        assert (found[:, 2:4] >= found[:, :2]).all()
        assert set(found[:, 5].tolist()) <= {0.0, 1.0, 2.0}
        assert not image[len(found) :].any()

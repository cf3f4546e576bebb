"""Mask R-CNN in Paddle, and the boxes that it is made of."""

import math

import numpy as np
import paddle
import pytest

from mask_rcnn import SIDE, MaskRCNNTests
from src.kit import scenes_paddle as boxes
from src.kit.instance_segmentation_paddle import ProposalNetwork, offset_loss, sample_examples
from src.models.paddle.instance_segmentation import mask_rcnn


class TestMaskRCNNPaddle(MaskRCNNTests):
    def build(self, classes=2, channels=3, size=SIDE):
        paddle.seed(0)
        return mask_rcnn.build(classes=classes, channels=channels, image_size=size, width=8, proposals=32)

    def step(self, network, images, arrays):
        paddle.seed(0)
        network.train()
        network.clear_gradients()
        losses = network(paddle.to_tensor(images), *map(paddle.to_tensor, arrays))
        losses.sum().backward()
        trained = {name: each for name, each in network.named_parameters() if not each.stop_gradient}
        slopes = {n: None if p.grad is None else float(p.grad.abs().max()) for n, p in trained.items()}
        return losses.numpy(), slopes

    def predict(self, network, images):
        network.eval()
        with paddle.no_grad():
            return network(paddle.to_tensor(images)).numpy()

    def overfit(self, images, truth):
        paddle.seed(0)
        network = mask_rcnn.build(classes=2, channels=3, image_size=SIDE, width=16, proposals=32)
        for layer in network.sublayers():
            if isinstance(layer, paddle.nn.BatchNorm2D):
                layer._momentum = 0.5  # so that few steps are enough for its statistics
        network.train()
        optimizer = paddle.optimizer.AdamW(2e-3, parameters=network.parameters())
        inputs = [paddle.to_tensor(array) for array in (images, *truth)]
        for _ in range(40):
            network(*inputs).sum().backward()
            optimizer.step()
            optimizer.clear_grad()
        return self.predict(network, images)


def tensor(*rows) -> paddle.Tensor:
    return paddle.to_tensor(np.array(rows, np.float32).reshape(-1, 4))


def test_overlaps_by_hand():
    found = boxes.iou(tensor([0, 0, 4, 4], [10, 10, 12, 12]), tensor([0, 0, 4, 4], [2, 0, 6, 4], [4, 4, 8, 8]))
    np.testing.assert_allclose(found.numpy(), [[1, 8 / 24, 0], [0, 0, 0]], atol=1e-6)
    assert boxes.area(tensor([1, 2, 4, 8])).tolist() == [18]


def test_offsets_are_undone_and_never_overflow():
    one, true = tensor([0, 0, 4, 8], [5, 5, 9, 7]), tensor([1, 2, 3, 4], [0, 0, 60, 60])
    offsets = boxes.encode_boxes(one, true)
    assert offsets[0].tolist() == pytest.approx([0, -1 / 8, math.log(0.5), math.log(0.25)])
    np.testing.assert_allclose(boxes.decode_boxes(one, offsets).numpy(), true.numpy(), atol=1e-4)
    assert np.isfinite(boxes.decode_boxes(one, tensor([0, 0, 999, 999], [0, 0, 999, 999])).numpy()).all()


def test_each_box_belongs_to_the_object_it_overlaps_most():
    found = tensor([0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 4], [50, 50, 60, 60], [0, 0, 3, 3])
    true = tensor([0, 0, 10, 9], [52, 50, 82, 60])
    owner, kind = boxes.match_boxes(found, true, 0.3, 0.7)
    assert kind.tolist() == [1, 0, 0, -1, -1]
    assert owner[:3].tolist() == [0, 0, 0]
    owner, kind = boxes.match_boxes(found, true, 0.3, 0.7, each=True)
    assert kind.tolist() == [1, 0, 0, 1, -1], "an object has its best box, however little they overlap"
    assert owner[3].item() == 1
    owner, kind = boxes.match_boxes(found, true[:0], 0.3, 0.7, each=True)
    assert kind.tolist() == [-1] * 5


def test_an_object_that_overlaps_nothing_gets_no_box():
    _, kind = boxes.match_boxes(tensor([0, 0, 4, 4], [8, 8, 12, 12]), tensor([50, 50, 60, 60]), 0.3, 0.7, each=True)
    assert kind.tolist() == [-1, -1]
    tiny = tensor([0, 0, 1e-3, 1e-3])  # overlaps the first box by less than float32's steps around 1
    _, kind = boxes.match_boxes(tensor([0, 0, 40, 40], [50, 50, 90, 90]), tiny, 0.3, 0.7, each=True)
    assert kind.tolist()[1] == -1, "a box that does not touch it never learns it"


def test_examples_are_drawn_at_random_within_their_share():
    kind = paddle.to_tensor(np.repeat([1, -1, 0], [20, 50, 30]))
    positive, negative = sample_examples(kind, 16, 0.25)
    assert (positive.shape, negative.shape) == ([4], [12])
    assert (kind[positive] == 1).all()
    assert (kind[negative] == -1).all()
    assert len(set(positive.tolist())) == 4
    positive, negative = sample_examples(paddle.to_tensor([-1, 1, -1]), 16, 0.25)
    assert (positive.tolist(), sorted(negative.tolist())) == ([1], [0, 2])
    positive, _ = sample_examples(paddle.to_tensor([-1, -1]), 16, 0.25)
    assert positive.shape == [0]


def test_offset_loss_is_quadratic_below_a_ninth():
    found = offset_loss(tensor([0.1, 0, 0, 1]), tensor([0, 0, 0, 0]))
    assert found.item() == pytest.approx(4.5 * 0.01 + 1 - 0.5 / 9, abs=1e-5)


def test_anchors_have_the_area_of_their_level_and_three_shapes():
    network = ProposalNetwork(8, 128, 10)
    anchors = network.anchors([2, 3], 1).numpy()
    assert anchors.shape == (2, 3, 3, 4)
    size = anchors[..., 2:] - anchors[..., :2]
    np.testing.assert_allclose(size.prod(axis=-1), 16**2, rtol=1e-5)
    np.testing.assert_allclose(size[0, 0, :, 1] / size[0, 0, :, 0], (0.5, 1, 2), rtol=1e-5)
    np.testing.assert_allclose((anchors[1, 2, 1, :2] + anchors[1, 2, 1, 2:]) / 2, (16, 8), atol=1e-5)


def test_proposals_reach_to_the_border_of_larger_images():
    """With data.sizes, batches differ in size from the one that the network was built for."""
    network = mask_rcnn.build(classes=2, channels=3, image_size=SIDE, width=8, proposals=32)
    with paddle.no_grad():
        (found,), _ = network.propose(network.pyramid(paddle.zeros([1, 3, 96, 128])), (96.0, 128.0))
    assert SIDE < found[:, 1::2].max().item() <= 96 < found[:, 0::2].max().item() <= 128
    assert found.min().item() >= 0

"""Tests of Mask R-CNN in any framework; test_mask_rcnn_lightning.py and test_mask_rcnn_paddle.py run them."""

from typing import Any

import numpy as np
import pytest

SIDE = 64
MOST = 3

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def arrays(*images: list[tuple[int, tuple[int, int, int, int]]], most: int = MOST) -> Arrays:
    """The padded arrays of images with rectangles of these kinds (1 object, 2 crowd) as x1, y1, x2, y2."""
    shape = (len(images), most)
    labels, boxes, kinds = np.zeros(shape, np.int64), np.zeros((*shape, 4), np.float32), np.zeros(shape, np.uint8)
    masks = np.zeros((*shape, SIDE, SIDE), np.uint8)
    for row, objects in enumerate(images):
        for k, (kind, (x1, y1, x2, y2)) in enumerate(objects):
            labels[row, k], boxes[row, k], kinds[row, k] = k % 2, (x1, y1, x2, y2), kind
            masks[row, k, y1:y2, x1:x2] = 1
    return labels, boxes, kinds, masks


BATCHES = {
    "objects": arrays([(1, (4, 4, 30, 40)), (1, (20, 10, 60, 30))], [(1, (8, 8, 24, 24))]),
    "one image without": arrays([(1, (4, 4, 30, 40))], []),
    "none": arrays([], []),
    "none, no padding": arrays([], [], most=0),
    "crowds only": arrays([(2, (4, 4, 30, 40))], [(2, (0, 0, 64, 64))]),
    "on the border": arrays([(1, (0, 0, 20, 64)), (1, (44, 40, 64, 64))], [(1, (0, 0, 64, 64))]),
    "one pixel": arrays([(1, (10, 10, 11, 11))], [(1, (63, 63, 64, 64))]),
}


class MaskRCNNTests:
    """Subclasses give `build`, `step` and `predict`."""

    def build(self, classes: int = 2, channels: int = 3, size: int = SIDE) -> Any:
        """A tiny network."""
        raise NotImplementedError

    def step(self, network: Any, images: np.ndarray, arrays: Arrays) -> tuple[np.ndarray, dict[str, float | None]]:
        """The losses, and the largest gradient of each parameter."""
        raise NotImplementedError

    def predict(self, network: Any, images: np.ndarray) -> np.ndarray:
        """The rows that evaluation gives."""
        raise NotImplementedError

    @pytest.fixture
    def network(self) -> Any:
        return self.build()

    @pytest.fixture
    def images(self) -> np.ndarray:
        return np.random.default_rng(0).standard_normal((2, 3, SIDE, SIDE), dtype=np.float32)

    @pytest.mark.parametrize("name", BATCHES)
    def test_losses_are_finite_and_only_objects_have_some(self, network, images, name):
        losses, slopes = self.step(network, images, BATCHES[name])
        assert losses.shape == (5,)
        assert np.isfinite(losses).all()
        assert all(np.isfinite(slope) for slope in slopes.values() if slope is not None)
        has_objects = (BATCHES[name][2] == 1).any()
        # the class and the object loss have negative examples; offsets and masks need an object
        assert (losses > 1e-6).sum() == 5 if has_objects else (losses > 1e-6).sum() == 2

    def test_every_parameter_learns(self, network, images):
        _, slopes = self.step(network, images, BATCHES["objects"])
        assert not [name for name, slope in slopes.items() if not slope]

    def test_padding_and_crowds_change_nothing(self, network, images):
        labels, boxes, kinds, masks = BATCHES["objects"]
        plain, _ = self.step(network, images, (labels[:, :2], boxes[:, :2], kinds[:, :2], masks[:, :2]))
        kinds = kinds.copy()
        kinds[:, 2], boxes = 2, boxes.copy()
        boxes[:, 2] = (0, 0, 60, 60)
        crowded, _ = self.step(network, images, (labels, boxes, kinds, masks))
        np.testing.assert_allclose(crowded, plain, rtol=1e-4)

    def test_evaluation_gives_100_padded_rows(self, network, images):
        rows = self.predict(network, images)
        assert rows.shape == (2, 100, 6 + 28 * 28)
        assert np.isfinite(rows).all()
        for image in rows:
            found = image[image[:, 4] > 0]
            assert (np.diff(image[:, 4]) <= 1e-6).all(), "most confident first"
            assert ((found[:, 4] >= 0.05) & (found[:, 4] <= 1)).all()
            assert ((found[:, :4] >= 0) & (found[:, :4] <= SIDE)).all()
            assert np.isin(found[:, 5], (0, 1)).all()
            assert ((found[:, 6:] >= 0) & (found[:, 6:] <= 1)).all()
            assert not image[len(found) :].any()

    @pytest.mark.parametrize(("classes", "channels", "size"), [(1, 3, 64), (3, 1, 64), (2, 3, 96), (2, 3, 40)])
    def test_other_numbers_of_classes_and_channels_and_other_sizes_work(self, classes, channels, size):
        network = self.build(classes, channels, size)
        images = np.random.default_rng(0).standard_normal((1, channels, size, size), dtype=np.float32)
        assert self.predict(network, images).shape == (1, 100, 6 + 28 * 28)

    def test_images_may_be_larger_than_the_network_was_built_for(self, network):
        """With data.sizes and data.rectangular, batches differ in size."""
        images = np.random.default_rng(1).standard_normal((2, 3, 96, 128), dtype=np.float32)
        labels, boxes, kinds, _ = BATCHES["objects"]
        masks = np.zeros((2, MOST, 96, 128), np.uint8)
        masks[:, :2, 70:90, 70:120] = 1
        boxes = np.broadcast_to(np.float32([70, 70, 120, 90]), boxes.shape).copy()
        losses, _ = self.step(network, images, (labels, boxes, kinds, masks))
        assert np.isfinite(losses).all()

    def test_it_learns_one_image_by_heart(self):
        """It reproduces the boxes, classes and masks."""
        rng = np.random.default_rng(0)
        images = rng.normal(0, 0.1, (1, 3, SIDE, SIDE)).astype(np.float32)
        truth = arrays([(1, (4, 4, 28, 36)), (1, (34, 20, 62, 44))])
        images[0, 0][truth[3][0, 0] > 0] += 2
        images[0, 2][truth[3][0, 1] > 0] += 2
        rows = self.overfit(images, truth)[0]
        sure = rows[rows[:, 4] > 0.5]
        for k in range(2):
            own = sure[sure[:, 5] == k]
            assert len(own) == 1
            assert np.abs(own[0, :4] - truth[1][0, k]).max() < 10
            assert own[0, 6:].mean() > 0.6, "the mask fills its box"

    def overfit(self, images: np.ndarray, truth: Arrays) -> np.ndarray:
        """Train a new network on one batch, and return what it predicts for it."""
        raise NotImplementedError

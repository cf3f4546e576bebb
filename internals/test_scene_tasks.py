"""What detection and segmentation make of samples and predictions, without any framework."""

import numpy as np
import pytest
from pycocotools import mask as runs

from src.kit.errors import UserError
from src.kit.scenes import class_map
from src.kit.scenes.samples import Sample
from src.kit.scenes.scores import encode, predicted_objects, true_objects
from src.kit.training.evaluation import refuse_other_classes
from src.tasks import detection, instance_segmentation, segmentation

SIDE = 12


def sample(*objects: tuple[int, tuple[int, int, int, int]], crowd: tuple[int, ...] = (), **keys) -> Sample:
    """Rectangles of these classes as x1, y1, x2, y2, with their masks."""
    masks = np.zeros((len(objects), SIDE, SIDE), bool)
    for k, (_, (x1, y1, x2, y2)) in enumerate(objects):
        masks[k, y1:y2, x1:x2] = True
    whole = {
        "image": np.zeros((SIDE, SIDE, 3), np.uint8),
        "boxes": np.array([box for _, box in objects], np.float32).reshape(-1, 4),
        "labels": np.array([label for label, _ in objects], np.int64),
        "crowd": np.isin(np.arange(len(objects)), crowd),
        "masks": masks,
    }
    return Sample(**{**whole, **keys})


SAMPLES = [
    sample((2, (0, 0, 6, 6)), (1, (4, 4, 12, 12)), (0, (8, 0, 12, 2)), crowd=(1,)),
    sample(),
    sample((1, (3, 3, 5, 5))),
]


def test_objects_are_padded_to_the_most_of_the_batch():
    labels, boxes, kinds = detection.Task().targets(SAMPLES)
    assert labels.tolist() == [[2, 1, 0], [0, 0, 0], [1, 0, 0]]
    assert kinds.tolist() == [[1, 2, 1], [0, 0, 0], [1, 0, 0]]
    assert (labels.dtype, boxes.dtype, kinds.dtype) == (np.int64, np.float32, np.uint8)
    assert boxes[2].tolist() == [[3, 3, 5, 5], [0] * 4, [0] * 4]
    *same, masks = instance_segmentation.Task().targets(SAMPLES)
    assert all(np.array_equal(one, other) for one, other in zip(same, (labels, boxes, kinds), strict=True))
    assert (masks.shape, masks.dtype) == ((3, 3, SIDE, SIDE), np.uint8)
    assert masks[0, 1].sum() == 64
    assert not masks[1].any()


@pytest.mark.parametrize("task", [detection, instance_segmentation])
def test_a_batch_without_objects_has_arrays_too(task):
    labels, boxes, kinds, *masks = task.Task().targets([sample(), sample()])
    assert (labels.shape, boxes.shape, kinds.shape) == ((2, 0), (2, 0, 4), (2, 0))
    assert all(each.shape == (2, 0, SIDE, SIDE) for each in masks)


def test_padding_is_taken_off_again():
    *arrays, masks = instance_segmentation.Task().targets(SAMPLES)
    for row, whole in enumerate(SAMPLES):
        found = true_objects(*(array[row] for array in arrays), masks[row])
        assert np.array_equal(found.boxes, whole.boxes)
        assert np.array_equal(found.labels, whole.labels)
        assert np.array_equal(found.crowd, whole.crowd)
        assert (found.scores == 1).all()
        assert [runs.area(code) for code in found.outlines] == whole.masks.sum(axis=(1, 2)).tolist()
    assert true_objects(*(array[0] for array in arrays)).outlines is None


def test_predictions_keep_boxes_scores_and_classes():
    found = predicted_objects(np.array([[1, 2, 3, 4, 0.5, 7]], np.float32))
    assert (found.boxes.tolist(), found.scores.tolist(), found.labels.tolist()) == ([[1, 2, 3, 4]], [0.5], [7])
    assert found.labels.dtype == np.int64
    assert not found.crowd.any()
    assert len(predicted_objects(np.zeros((0, 6), np.float32))) == 0


def test_run_lengths_give_the_masks_back():
    masks = np.random.default_rng(0).random((3, 5, 7)) < 0.5
    assert np.array_equal(runs.decode(encode(masks)).transpose(2, 0, 1), masks)
    assert encode(masks[:0]) == []


def test_only_predictions_with_some_score_are_kept():
    outputs = np.zeros((3, 4, 6), np.float32)
    outputs[0, 0] = [0, 0, 6, 6, 0.9, 2]
    outputs[0, 1] = [0, 0, 6, 6, 0.0005, 1]
    kept = detection.Task().collect(outputs, *detection.Task().targets(SAMPLES))
    assert [len(predicted) for predicted, _ in kept] == [1, 0, 0]
    assert [len(true) for _, true in kept] == [3, 0, 1]
    scores = detection.Task().metrics(kept, ("a", "b", "c"))
    assert scores == {"map": pytest.approx(1 / 3), "map50": pytest.approx(1 / 3)}, "one of three classes is found"
    whole = detection.Task().evaluate(kept, ("a", "b", "c"))
    assert (whole["samples"], whole["classes"]) == (3, ["a", "b", "c"])
    assert [row["objects"] for row in whole["per_class"]] == [1, 1, 1]


def test_a_mask_is_stretched_over_its_box():
    left = np.zeros((28, 28), np.float32)
    left[:, :14] = 1
    whole = instance_segmentation.paste(left, np.array([2.0, 1, 10, 5]), (SIDE, SIDE + 2))
    assert whole.shape == (SIDE, SIDE + 2)
    expected = np.zeros_like(whole)
    expected[1:5, 2:6] = True
    assert np.array_equal(whole, expected)


@pytest.mark.parametrize(
    ("box", "pixels"),
    [
        ((-5, -5, 3, 2), 6),
        ((9, 10, 40, 40), 6),
        ((4, 4, 4, 4), 1),
        ((50, 50, 60, 60), 1),
        ((0, 0, SIDE, SIDE), SIDE**2),
    ],
)
def test_boxes_at_and_beyond_the_border_and_without_area_are_cut_to_the_image(box, pixels):
    whole = instance_segmentation.paste(np.ones((28, 28), np.float32), np.array(box, np.float32), (SIDE, SIDE))
    assert whole.sum() == pixels


def test_instances_are_scored_by_masks_and_boxes():
    arrays = instance_segmentation.Task().targets(SAMPLES[2:])
    outputs = np.zeros((1, 2, 6 + 28 * 28), np.float32)
    outputs[0, 0, :6] = [3, 3, 5, 5, 0.9, 1]
    outputs[0, 0, 6:] = 1
    kept = instance_segmentation.Task().collect(outputs, *arrays)
    assert instance_segmentation.Task().metrics(kept, ("a", "b")) == pytest.approx(
        {"mask_map": 1, "mask_map50": 1, "map50": 1}
    )
    outputs[0, 0, 6:] = 0
    kept = instance_segmentation.Task().collect(outputs, *arrays)
    scores = instance_segmentation.Task().evaluate(kept, ("a", "b"))
    assert (scores["mask_map"], scores["map"]) == (0, pytest.approx(1)), "the box is right and the mask is empty"
    assert scores["per_class"][1] == {
        "class": "b", "mask_map": 0, "mask_map50": 0, "map": pytest.approx(1), "map50": pytest.approx(1), "objects": 1,
        "precision": 0, "recall": 0,
    }  # fmt: skip


def test_a_class_map_is_drawn_from_outlines_large_ones_first():
    small, large = (0, (0, 0, 3, 3)), (4, (0, 0, 8, 8))
    drawn = class_map(sample(small, large))
    assert np.array_equal(drawn, class_map(sample(large, small)))
    assert drawn[0, 0] == 1
    assert drawn[5, 5] == 5
    assert drawn[9, 9] == 0, "background"
    assert np.unique(drawn).tolist() == [0, 1, 5]
    crowded = class_map(sample(small, large, crowd=(1,)))
    assert (crowded[0, 0], crowded[5, 5]) == (1, 255), "a crowd's pixels are not learned"
    assert not class_map(sample()).any()
    given = np.full((SIDE, SIDE), 3, np.uint8)
    assert class_map(sample(small, semantic=given)) is given
    (stacked,) = segmentation.Task().targets([sample(small), sample(semantic=given)])
    assert (stacked.shape, stacked.dtype) == ((2, SIDE, SIDE), np.uint8)


def test_pixels_are_counted_by_hand():
    true = np.array([[[0, 0, 1], [1, 2, 255]]], np.uint8)
    outputs = np.zeros((1, 4, 2, 3), np.float32)
    for place, k in np.ndenumerate(np.array([[0, 1, 1], [1, 0, 3]])):
        outputs[0, k, place[0], place[1]] = 1
    kept = segmentation.Task().collect(outputs, true) + segmentation.Task().collect(outputs, np.full_like(true, 255))
    names = ("sky", "sea", "sand", "never")
    # sky: 1 of 3, sea: 2 of 3, sand: 0 of 1; the last class is neither true nor counted where it is predicted
    assert segmentation.Task().metrics(kept, names) == pytest.approx(
        {"miou": (1 / 3 + 2 / 3 + 0) / 3, "pixel_accuracy": 0.6}
    )
    whole = segmentation.Task().evaluate(kept, names)
    assert [row["iou"] for row in whole["per_class"]] == [pytest.approx(1 / 3), pytest.approx(2 / 3), 0, None]
    assert [row["pixel_share"] for row in whole["per_class"]] == pytest.approx([0.4, 0.4, 0.2, 0])
    assert whole["samples"] == 2
    assert kept[0].example.tolist() == [[0, 1, 1], [1, 0, 3]]


def test_a_class_that_is_only_predicted_lowers_the_mean():
    outputs = np.zeros((1, 2, 1, 2), np.float32)
    outputs[0, 1, 0, 1] = 1
    kept = segmentation.Task().collect(outputs, np.zeros((1, 1, 2), np.uint8))
    assert segmentation.Task().metrics(kept, ("a", "b")) == {"miou": 0.25, "pixel_accuracy": 0.5}


def test_nothing_known_scores_0():
    kept = segmentation.Task().collect(np.zeros((1, 2, 1, 2), np.float32), np.full((1, 1, 2), 255, np.uint8))
    assert segmentation.Task().metrics(kept, ("a", "b")) == {"miou": 0.0, "pixel_accuracy": 0.0}


@pytest.mark.parametrize(
    ("classes", "difference"),
    [
        (["dog", "cat"], "Class 1 is 'cat' in the run and 'dog' in"),
        (["cat"], "Class 2 is 'dog' in the run and None in"),
    ],
)
def test_a_run_is_evaluated_on_its_own_classes_only(classes, difference):
    refuse_other_classes({"classes": '["cat", "dog"]'}, ("cat", "dog"), "coco_folder")
    with pytest.raises(UserError, match=f"{difference} data=coco_folder: evaluate it on data with the classes"):
        refuse_other_classes({"classes": '["cat", "dog"]'}, classes, "coco_folder")

"""Pictures of predictions: only what the task learns, in the same colours as the truth, with names and scores."""

from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure
from omegaconf import OmegaConf

from src.kit.scenes.drawing import CELL, COLUMNS, boxes_only, draw_objects, draw_scene, with_class_map, with_objects
from src.kit.scenes.samples import IGNORE, Sample
from src.kit.scenes.scores import SHOWN_SCORE, encode, predicted_objects

SIDE = 64
BOXES = np.float32([[4, 20, 30, 60], [40, 20, 60, 50]])


@pytest.fixture
def sample() -> Sample:
    masks = np.zeros((2, SIDE, SIDE), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, BOXES.astype(int), strict=True):
        mask[y1:y2, x1:x2] = True
    image = np.full((SIDE, SIDE, 3), 128, np.uint8)
    return Sample(image, BOXES, np.array([0, 2]), np.array([False, False]), masks)


def texts(*arguments) -> list[str]:
    """What is written into a picture of one sample."""
    axes = Figure().add_subplot()
    draw_scene(axes, *arguments)
    return [text.get_text() for text in axes.texts]


def test_sure_predictions_stand_with_their_scores(sample):
    rows = np.float32([[4, 20, 30, 60, 0.9, 0], [40, 20, 70, 50, 0.3, 1], [0, 0, 9, 9, 0.2, 2], [5, 5, 5, 9, 0.8, 2]])
    shown, scores = with_objects(boxes_only(sample), predicted_objects(rows), SHOWN_SCORE)
    assert shown.boxes.tolist() == [[4, 20, 30, 60], [40, 20, 64, 50]], "cut to the image; the unsure and empty are not"
    assert shown.labels.tolist() == [0, 1]
    assert scores.tolist() == pytest.approx([0.9, 0.3])
    assert shown.masks is None
    assert sorted(texts(shown, ["cat", "dog", "owl"], scores)) == ["cat 90%", "dog 30%"]
    assert sorted(texts(sample, ["cat", "dog", "owl"])) == ["cat", "owl"]
    nothing, none = with_objects(sample, predicted_objects(rows[:0], []), SHOWN_SCORE)
    assert texts(nothing, ["cat"], none) == ["no objects"]


def test_names_can_be_read_where_a_page_shrinks_the_picture(sample):
    regions = np.zeros((SIDE, SIDE), np.uint8)
    for shown in (sample, boxes_only(sample), with_class_map(sample, regions, SimpleNamespace(has_background=False))):
        axes = Figure().add_subplot()
        draw_scene(axes, shown, ["cat", "dog", "owl"])
        pixels = [text.get_fontsize() * 900 / 72 / (COLUMNS * CELL) for text in axes.texts]
        assert pixels
        assert min(pixels) >= 9


def test_masks_are_those_of_the_sure_predictions(sample):
    rows = np.float32([[0, 0, 9, 9, 0.1, 2], [40, 20, 60, 50, 0.5, 1]])
    shown, _ = with_objects(sample, predicted_objects(rows, encode(sample.masks)), 0.2)
    assert np.array_equal(shown.masks, sample.masks[1:])


def test_outlines_are_drawn_only_where_they_are_predicted(sample, tmp_path, monkeypatch):
    drawn, cfg = {}, OmegaConf.create({"data": {"image_size": SIDE, "batch_size": 1}})
    monkeypatch.setattr("src.kit.scenes.drawing.read_sample", lambda *_: sample)
    monkeypatch.setattr("src.kit.scenes.drawing.draw_scenes", lambda samples, *_: drawn.update(all=samples))
    for outlines in (None, encode(sample.masks[:1])):
        found = predicted_objects(np.float32([[4, 20, 30, 60, 0.9, 0]]), outlines)
        draw_objects([(found, found)], SimpleNamespace(classes=["cat"]), cfg, tmp_path)
        assert [each.masks is None for each in drawn["all"]] == [outlines is None] * 2


def test_a_background_that_is_no_class_is_not_painted(sample):
    classes = np.zeros((SIDE, SIDE), np.uint8)
    classes[20:60, 4:30], classes[20:50, 40:60], classes[:3] = 1, 3, IGNORE
    shown = with_class_map(sample, classes, SimpleNamespace(has_background=True))
    assert np.unique(shown.semantic).tolist() == [0, 2, IGNORE], "the data set's numbers, as in its other pictures"
    assert (shown.semantic == IGNORE).sum() == (classes == 0).sum() + (classes == IGNORE).sum()
    assert (len(shown.boxes), shown.masks) == (0, None)
    own = with_class_map(sample, classes, SimpleNamespace(has_background=False))
    assert np.array_equal(own.semantic, classes)


def test_regions_bear_the_names_of_their_classes_and_specks_none(sample):
    semantic = np.full((SIDE, SIDE), IGNORE, np.uint8)
    semantic[20:60, 4:30], semantic[0, :4] = 1, 2
    shown = with_class_map(sample, semantic, SimpleNamespace(has_background=False))
    assert texts(shown, ["cat", "dog", "owl"]) == ["dog"]
    assert (
        texts(with_class_map(sample, np.full_like(semantic, IGNORE), SimpleNamespace(has_background=False)), []) == []
    )

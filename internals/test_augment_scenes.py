"""Augmented annotations: boxes, outlines and class maps stay on what is painted in the image."""

from dataclasses import replace
from functools import partial
from itertools import cycle

import numpy as np
import pytest
from PIL import Image, ImageDraw

from src.kit.scenes import augmentation
from src.kit.scenes.augmentation import (
    GREY,
    Mix,
    blend,
    build_augmentation,
    build_combination,
    mosaic,
    outline_boxes,
    paste_objects,
)
from src.kit.scenes.samples import IGNORE, Sample

NAMES = ("none", "basic", "advanced")
SIZE = 96
COLOURS = np.array([[230, 30, 30], [30, 200, 30], [30, 30, 220], [220, 220, 30]], np.uint8)


def rectangles(rng: np.random.Generator, count: int, height: int, width: int, smallest: int = 1) -> Sample:
    """Rectangles painted over each other on black, each with its box, its outline and, in the class map, its label."""
    image, semantic = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.uint8)
    boxes, masks = np.zeros((count, 4), np.float32), np.zeros((count, height, width), bool)
    for number in range(count):
        (x1, x2), (y1, y2) = (span(rng, length, smallest) for length in (width, height))
        boxes[number] = x1, y1, x2, y2
        masks[number, y1:y2, x1:x2] = True
        semantic[y1:y2, x1:x2] = number + 1
        image[y1:y2, x1:x2] = COLOURS[number]
    labels = np.arange(count) + 1
    return Sample(image, boxes, labels, labels % 2 == 1, masks, semantic, f"scene-{count}")


def plain(image: np.ndarray, boxes: list[list[int]] | None = None, **rest) -> Sample:
    """An image with these boxes, labelled 0, 1, ...; the first one is a crowd."""
    labels = np.arange(len(boxes or []))
    return Sample(image, np.array(boxes or [], np.float32).reshape(-1, 4), labels, labels == 0, **rest)


def span(rng: np.random.Generator, length: int, smallest: int) -> tuple[int, int]:
    start = int(rng.integers(length - smallest + 1))
    return start, int(rng.integers(start + smallest, length + 1))


def scene(seed: int) -> Sample:
    rng = np.random.default_rng(seed)
    return rectangles(rng, int(rng.integers(0, 5)), int(rng.integers(20, 300)), int(rng.integers(20, 300)))


def augmenting(name: str, size: int = SIZE, flippable: bool = True):
    """An augmentation whose results are squares."""
    return partial(build_augmentation(name, flippable), canvas=(size, size))


@pytest.mark.parametrize("name", NAMES)
def test_the_result_is_a_sample_of_the_size(name):
    augment = build_augmentation(name)
    for seed, (height, width) in zip(range(60), cycle([(SIZE, SIZE), (64, SIZE), (SIZE, 32)]), strict=False):
        before = scene(seed)
        kept = (before.image.copy(), before.boxes.copy(), before.masks.copy())
        # Sample itself checks shapes, types and ranges
        after = augment(before, np.random.default_rng(seed), (height, width))
        assert after.image.shape == (height, width, 3)
        assert after.masks.shape == (len(after.boxes), height, width)
        assert after.semantic.shape == (height, width)
        assert after.image_id == before.image_id
        assert (after.crowd == (after.labels % 2 == 1)).all()  # flags stay with their labels
        assert (after.boxes[:, 2:] > after.boxes[:, :2]).all()
        assert all(np.array_equal(x, y) for x, y in zip(kept, (before.image, before.boxes, before.masks), strict=True))


# a rotated corner is a point that covers no pixel's centre, and outlines are resampled twice
@pytest.mark.parametrize(("name", "tolerance"), [("none", 0.51), ("basic", 0.51), ("advanced", 1.3)])
def test_a_box_goes_where_the_outline_goes(name, tolerance):
    """Moved on its own, without outlines, a box is that of the moved outline, within a pixel."""
    augment = augmenting(name)
    compared = 0
    for seed in range(300):
        whole = scene(seed)
        outlined = augment(whole, np.random.default_rng(seed))
        alone = augment(replace(whole, masks=None), np.random.default_rng(seed))
        assert alone.masks is None
        assert np.array_equal(alone.image, outlined.image)
        boxes = dict(zip(alone.labels.tolist(), alone.boxes, strict=True))
        for label, box, mask in zip(outlined.labels.tolist(), outlined.boxes, outlined.masks, strict=True):
            if not mask.any():
                assert name == "none"  # shrunk to less than a pixel, but still to be found
                continue
            expected = outline_boxes(mask[None])[0]
            assert np.abs(box - expected).max() <= (0.51 if name == "none" else 0)
            if label in boxes:  # else thinner than a pixel
                off = (boxes[label] - expected) * [-1, -1, 1, 1]  # above 0: the box is larger
                assert off.min() >= -tolerance, (seed, label)
                # of a tilted rectangle that is cut off, the corner outside decides the box and not the outline
                if name != "advanced" or (box.min() > 0 and box.max() < SIZE):
                    assert off.max() <= tolerance, (seed, label)
                    compared += 1
        missing = boxes.keys() - set(outlined.labels.tolist())
        assert all(min(boxes[label][2:] - boxes[label][:2]) < 2 for label in missing)
    assert compared > 250


@pytest.mark.parametrize("name", NAMES)
def test_outlines_and_class_maps_lie_on_the_painted_pixels(name):
    augment = augmenting(name)
    for seed in range(60):
        before = rectangles(np.random.default_rng(seed), 1, 120, 150, smallest=30)
        before = replace(before, image=np.dstack([before.masks[0].astype(np.uint8) * 255] * 3))
        after = augment(before, np.random.default_rng(seed))
        if not len(after.boxes):
            continue
        mask, inside = after.masks[0], after.semantic != IGNORE
        assert np.array_equal(mask, after.semantic == 1)
        bright, dark = after.image[mask].mean(), after.image[inside & ~mask]
        assert bright > 120
        assert not dark.size or dark.mean() < 60
        assert bright - (dark.mean() if dark.size else 0) > 100


def test_letterbox_keeps_the_aspect_and_pads_both_sides_alike():
    image = np.full((60, 120, 3), 250, np.uint8)
    sample = plain(image, [[0, 0, 120, 60], [30, 15, 60, 45]], semantic=np.full((60, 120), 7, np.uint8))
    after = augmenting("none", 80)(sample, np.random.default_rng(0))
    assert after.boxes.tolist() == [[0, 20, 80, 60], [20, 30, 40, 50]]
    assert (after.image[20:60] == 250).all()
    assert (after.image[:20] == GREY).all()
    assert (after.image[60:] == GREY).all()
    assert (after.semantic[20:60] == 7).all()
    assert (after.semantic[:20] == IGNORE).all()
    assert (after.semantic[60:] == IGNORE).all()
    tall = augmenting("none", 80)(plain(np.ones((7, 3, 3), np.uint8)), np.random.default_rng(0))
    assert tall.image.shape == (80, 80, 3)
    assert (tall.image == 1).all(axis=(0, 2)).sum() == 34  # 3 / 7 of 80


def test_letterbox_leaves_an_image_of_the_right_size_as_it_is():
    before = rectangles(np.random.default_rng(1), 3, SIZE, SIZE)
    after = augmenting("none")(before, np.random.default_rng(0))
    for name in ("image", "boxes", "labels", "crowd", "masks", "semantic"):
        assert np.array_equal(getattr(after, name), getattr(before, name)), name


@pytest.mark.parametrize("name", ["basic", "advanced"])
def test_what_leaves_the_image_is_dropped_with_all_that_belongs_to_it(name):
    boxes = [[0, 0, 10, 10], [190, 190, 200, 200], [0, 0, 200, 200]]
    masks = np.zeros((3, 200, 200), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = True
    sample = plain(np.full((200, 200, 3), 200, np.uint8), boxes, masks=masks)
    for drawn in (sample, replace(sample, masks=None)):
        results = [augmenting(name, 100)(drawn, np.random.default_rng(seed)) for seed in range(80)]
        seen = [set(result.labels.tolist()) for result in results]
        assert all(2 in labels for labels in seen)  # most of it is always visible
        assert {2} in seen
        assert {0, 1, 2} in seen
        for result in results:
            assert np.array_equal(result.crowd, result.labels == 0)
            assert result.masks is None or all(mask.any() for mask in result.masks)
            assert ((result.boxes[:, 2:] - result.boxes[:, :2]) >= 1).all()


@pytest.mark.parametrize("name", NAMES)
def test_outlines_that_pillow_has_drawn_are_kept(name):
    """Its True is a byte of 255."""
    drawn = Image.new("1", (90, 70))
    ImageDraw.Draw(drawn).rectangle([10, 10, 80, 60], fill=1)
    sample = plain(np.full((70, 90, 3), 200, np.uint8), [[10, 10, 81, 61]], masks=np.asarray(drawn)[None])
    for seed in range(10):
        after = augmenting(name)(sample, np.random.default_rng(seed))
        assert after.masks.sum() > 100


@pytest.mark.parametrize("name", NAMES)
def test_images_without_objects_work(name):
    for masks in (None, np.zeros((0, 50, 70), bool)):
        empty = plain(np.full((50, 70, 3), 9, np.uint8), masks=masks)
        for seed in range(20):
            after = augmenting(name)(empty, np.random.default_rng(seed))
            assert after.image.shape == (SIZE, SIZE, 3)
            assert len(after.boxes) == len(after.labels) == len(after.crowd) == 0
            assert (after.masks is None) == (masks is None)


@pytest.mark.parametrize("name", ["basic", "advanced"])
def test_only_data_that_may_be_is_mirrored(name):
    left_half = np.zeros((SIZE, SIZE), np.uint8)
    left_half[:, : SIZE // 2] = 1
    sample = plain(np.dstack([left_half * 200] * 3), semantic=left_half)
    for flippable, expected in ((True, 0.5), (False, 0.0)):
        augment, mirrored = augmenting(name, SIZE, flippable), []
        for seed in range(150):
            semantic = augment(sample, np.random.default_rng(seed)).semantic
            columns, others = (np.nonzero(semantic == number)[1] for number in (1, 0))
            if len(columns) and len(others):
                mirrored.append(columns.mean() > others.mean())
        assert np.mean(mirrored) == pytest.approx(expected, abs=0.12)


@pytest.mark.parametrize("name", NAMES)
def test_the_generator_decides_everything(name):
    augment = augmenting(name)
    before = scene(3)
    results = [augment(before, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert np.array_equal(results[0].image, results[1].image)
    assert np.array_equal(results[0].boxes, results[1].boxes)
    assert np.array_equal(results[0].image, results[2].image) == (name == "none")


def test_basic_zooms_in_and_out():
    before = plain(np.full((100, 100, 3), 255, np.uint8), [[40, 40, 60, 60]])
    augment = augmenting("basic", 100)
    boxes = np.concatenate([augment(before, np.random.default_rng(seed)).boxes for seed in range(200)])
    widths = boxes[:, 2] - boxes[:, 0]
    assert widths.max() == pytest.approx(30, abs=1)
    assert np.percentile(widths, 5) < 13


def numbered(number: int, height: int, width: int) -> Sample:
    """Two rectangles and a crowd that do not touch; every pixel tells which object of which image it shows."""
    whole = rectangles(np.random.default_rng(number), 3, height, width, smallest=8)
    masks = whole.masks.copy()
    masks[0] &= ~(masks[1] | masks[2])
    masks[1] &= ~masks[2]
    semantic = (masks * np.arange(10 * number + 1, 10 * number + 4)[:, None, None]).sum(axis=0).astype(np.uint8)
    labels = np.arange(10 * number + 1, 10 * number + 4)
    kept = masks.any(axis=(1, 2))
    whole = replace(whole, image=np.dstack([semantic + 40] * 3), masks=masks, semantic=semantic, labels=labels)
    return augmentation.take_objects(replace(whole, boxes=outline_boxes(masks)), kept)


def check_pixels(sample: Sample) -> None:
    """Each outline is where the image shows its object, and each box is that of the outline."""
    for label, mask in zip(sample.labels, sample.masks, strict=True):
        assert np.array_equal(mask, sample.image[..., 0] == label + 40)
    assert np.array_equal(sample.boxes, outline_boxes(sample.masks))
    assert (sample.crowd == (sample.labels % 10 % 2 == 1)).all()


def test_a_mosaic_is_right_to_the_pixel(monkeypatch):
    monkeypatch.setattr(augmentation, "ZOOM", (1, 1))  # nothing is resized
    sizes, seen = ((SIZE, 60), (40, SIZE), (SIZE, SIZE), (SIZE, 80)), set()
    for seed, canvas in zip(range(20), cycle([(SIZE, SIZE), (64, SIZE)]), strict=False):
        four = [numbered(4 * seed % 16 + k, *size) for k, size in enumerate(sizes)]
        found = mosaic(True, four, np.random.default_rng(seed), canvas)
        assert found.image.shape == (*canvas, 3)
        check_pixels(found)
        shown = {label for each in four for label in each.labels if (found.image == label + 40).any()}
        assert set(found.labels.tolist()) == shown, "what is seen is annotated, once"
        assert len(found.labels) == len(shown)
        inside = found.semantic != IGNORE
        assert np.array_equal(found.image[..., 0][inside], found.semantic[inside] + 40)
        assert (found.image[~inside] == GREY).all(), "what no image covers is grey, and is not learned"
        seen |= {number // 10 - 4 * seed % 16 for number in shown}
        boxes = mosaic(True, [replace(each, masks=None) for each in four], np.random.default_rng(seed), canvas).boxes
        assert len(boxes) >= len(found.boxes)
    assert seen == {0, 1, 2, 3}, "all four images are shown"


def test_pasted_objects_hide_what_they_cover():
    pasted = hidden = 0
    for seed in range(40):
        target, source = numbered(1, SIZE, SIZE), numbered(2 + seed % 8, SIZE, SIZE)
        found = paste_objects(target, source, np.random.default_rng(seed))
        check_pixels(found)
        new = found.labels >= 20
        assert not found.crowd[new].any(), "crowds are not copied"
        assert np.array_equal(found.image[~found.masks[new].any(axis=0)], target.image[~found.masks[new].any(axis=0)])
        pasted, hidden = pasted + int(new.sum()), hidden + len(target.labels) - int((~new).sum())
        assert (target.image < 60).all(), "the sample that was read is not changed"
    assert 20 < pasted < 40
    assert hidden > 0


def test_mixup_keeps_the_objects_of_both():
    first, second = numbered(1, SIZE, SIZE), numbered(2, SIZE, SIZE)
    found = blend(first, second, 0.25)
    assert found.image[5, 7].tolist() == [round(0.25 * first.image[5, 7, 0] + 0.75 * second.image[5, 7, 0])] * 3
    for name in ("boxes", "labels", "crowd", "masks"):
        assert np.array_equal(getattr(found, name), np.concatenate([getattr(first, name), getattr(second, name)]))


@pytest.mark.parametrize("name", NAMES)
def test_combinations_are_samples_of_the_size(name):
    combination = build_combination(Mix(0.5, 0.5, 0.5), name)
    for seed, canvas in zip(range(20), cycle([(SIZE, SIZE), (64, SIZE)]), strict=False):
        numbers = iter(range(seed, seed + 20))
        rng = np.random.default_rng(seed)
        after = combination(lambda: replace(scene(next(numbers)), semantic=None), rng, canvas)  # noqa: B023
        assert after.masks.shape == (len(after.boxes), *canvas)
        assert (after.crowd == (after.labels % 2 == 1)).all()

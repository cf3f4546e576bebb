"""Batches of annotated images: shapes, values, order, ranks, threads, limits, sizes and rectangles."""

from itertools import chain

import numpy as np
import pytest

from scene_files import SQUARE, image
from src.kit.errors import UserError
from src.kit.inference import size_of
from src.kit.inference_scenes import rectangle
from src.kit.scenes.annotations import Annotations
from src.kit.scenes.augmentation import Mix
from src.kit.scenes.loader import SceneLoader
from src.kit.scenes.samples import Scenes
from test_scenes import CLASSES, scenes

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]


def loader(found, batch_size=4, image_size=32, **options) -> SceneLoader:
    return SceneLoader(found, batch_size, MEAN, STD, image_size, **options)


def ids(batches) -> list[int]:
    return [sample.image_id for _, samples in batches for sample in samples]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return scenes(tmp_path_factory.mktemp("scenes"), *[[number % 3] * (number % 4) for number in range(20)])


@pytest.mark.parametrize("augment", ["none", "basic"])
def test_images_are_the_samples_normalised(found, augment):
    batches = list(loader(found, augment=augment, batch_size=8))
    assert [len(samples) for _, samples in batches] == [8, 8, 4]
    for images, samples in batches:
        assert (images.shape[1:], images.dtype) == ((3, 32, 32), np.float32)
        assert images.flags.c_contiguous
        for pixels, sample in zip(images, samples, strict=True):
            assert sample.image.shape == (32, 32, 3)
            expected = (sample.image.astype(np.float64) / 255 - MEAN) / STD
            np.testing.assert_allclose(pixels, expected.transpose(2, 0, 1), atol=1e-5)
            assert len(sample.boxes) == len(sample.labels) == len(sample.crowd) == len(sample.masks)


def test_without_augmentation_boxes_are_letterboxed(found):
    _, samples = next(iter(loader(found.take(np.array([1])), batch_size=1)))
    np.testing.assert_allclose(samples[0].boxes, [[0, 8, 3.2, 11.2]], atol=1e-5)  # 20 x 10 -> 32 x 16 in the middle


def test_order_depends_on_seed_and_epoch_only(found):
    batches = loader(found, shuffle=True, seed=3, augment="basic", num_workers=0)
    first = ids(batches)
    assert sorted(first) == list(range(20))
    threaded = loader(found, shuffle=True, seed=3, augment="basic", num_workers=3)
    for (one, _), (other, _) in zip(batches, threaded, strict=True):
        assert np.array_equal(one, other)
    batches.set_epoch(1)
    assert ids(batches) != first
    assert ids(loader(found, shuffle=True, seed=4)) != first


def test_augmentation_depends_on_seed_epoch_rank_and_batch(found):
    """All batches hold the same image, so the order can make no difference."""
    same = found.take(np.full(8, 1))

    def drawn(epoch: int = 0, seed: int = 0, **sharing: int) -> list[np.ndarray]:
        batches = loader(same, batch_size=1, augment="basic", num_workers=0, seed=seed, **sharing)
        batches.set_epoch(epoch)
        return [images for images, _ in batches][:4]

    usual = drawn()
    assert all(np.array_equal(one, other) for one, other in zip(drawn(), usual, strict=True))
    ranks = [drawn(rank=rank, world_size=2) for rank in (0, 1)]
    for name, others in {"epoch": drawn(1), "seed": drawn(seed=1), "rank": ranks[1], "batch": usual[1:]}.items():
        pairs = zip(others, ranks[0] if name == "rank" else usual, strict=False)
        assert not any(np.array_equal(one, other) for one, other in pairs), name


@pytest.mark.parametrize("world_size", [1, 3])
def test_ranks_share_the_images(found, world_size):
    shares = [ids(loader(found, rank=rank, world_size=world_size)) for rank in range(world_size)]
    assert sorted(chain(*shares)) == list(range(20))
    shares = [ids(loader(found, rank=rank, world_size=world_size, shuffle=True)) for rank in range(world_size)]
    assert len({len(share) for share in shares}) == 1
    assert set(chain(*shares)) == set(range(20))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_can_begin_at_any_batch(found, workers):
    batches = loader(found, shuffle=True, num_workers=workers, augment="basic")
    whole = [images for images, _ in batches]
    batches.set_epoch(0, first_batch=3)
    rest = [images for images, _ in batches]
    assert len(rest) == 2
    assert all(np.array_equal(one, other) for one, other in zip(rest, whole[3:], strict=True))
    batches.set_epoch(0, first_batch=5)
    assert list(batches) == []


def test_limits_and_the_last_batch(found):
    assert len(loader(found, batch_size=6)) == len(list(loader(found, batch_size=6))) == 4
    assert len(loader(found, batch_size=19, drop_single=True)) == 1
    assert (len(loader(found, limit=2)), len(loader(found, limit=0.4))) == (2, 2)


def test_every_batch_has_one_of_the_sizes(found):
    batches = loader(found, sizes=[32, 48], batch_size=2, shuffle=True, augment="basic")
    sizes = [images.shape[2] for images, _ in batches]
    assert set(sizes) == {32, 48}
    other = loader(found, sizes=[32, 48], batch_size=1, shuffle=True, rank=1, world_size=2)
    assert [images.shape[2] for images, _ in other] == sizes


def test_a_batch_without_any_object(found):
    _, samples = next(iter(loader(found.take(np.array([0, 4, 8])))))
    assert [sample.boxes.shape for sample in samples] == [(0, 4)] * 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 21, "shuffle": True}, "data.batch_size=21 is more than the 20 training samples"),
        ({"augment": "flip"}, "Unknown data.augment 'flip'"),
        ({"limit": 0}, "A limit of batches must be"),
        ({"sizes": [0]}, "data.sizes must be a list of heights"),
    ],
)
def test_what_cannot_be_meant_is_refused(found, options, message):
    with pytest.raises(UserError, match=message):
        loader(found, **options)
    with pytest.raises(UserError, match="must have one value for each of 3 channels"):
        SceneLoader(found, 4, [0.5], [0.5], 32)


def test_images_are_combined_until_the_last_epochs(found):
    options = {"shuffle": True, "seed": 3, "augment": "basic", "batch_size": 8}
    mixed = loader(found, mix=Mix(mosaic=1, copy_paste=0.5, mixup=0.5), mixed_epochs=1, num_workers=0, **options)
    threaded = loader(found, mix=Mix(mosaic=1, copy_paste=0.5, mixup=0.5), mixed_epochs=1, num_workers=2, **options)
    plain = loader(found, num_workers=0, **options)
    objects = {}
    for epoch in (0, 1):
        for each in (mixed, threaded, plain):
            each.set_epoch(epoch)
        for (one, samples), (other, _), (alone, few) in zip(mixed, threaded, plain, strict=True):
            assert np.array_equal(one, other), "whatever the number of threads"
            assert np.array_equal(one, alone) == (epoch == 1)
            assert [sample.image_id for sample in samples] == [sample.image_id for sample in few], "the first of four"
            objects[epoch] = [sum(len(sample.labels) for sample in part) for part in (samples, few)]
    assert objects[0][0] > objects[0][1]


SHAPES = ((90, 60), (60, 90), (90, 20), (64, 64), (33, 90))  # widths and heights


@pytest.fixture(scope="module")
def shaped(tmp_path_factory):
    """42 images of five shapes, each with one object; the annotations of every other one state no size."""
    root, annotations = tmp_path_factory.mktemp("shaped"), Annotations()
    for number in range(42):
        width, height = SHAPES[number * 7 % 5]
        path, known = image(root / f"{number}.png", (width, height)), number % 2
        annotations.add_image(path, number, (width, height) if known else None)
        unit = (1, 1) if known else (width, height)
        annotations.add_object(number, (0, 0, width / unit[0], height / unit[1]), number % 3, outline=[SQUARE])
    return Scenes(annotations.finish(root), CLASSES)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(60, 90)], (64, 96)),
        ([(48, 96), (30, 90)], (64, 96)),  # 48 of 96 and 32 of 96
        ([(90, 270)], (32, 96)),
        ([(60, 90), (90, 60)], (96, 96)),
        ([(7, 1)], (96, 32)),
    ],
)
def test_a_rectangle_is_the_smallest_that_holds_its_images(sizes, expected):
    assert rectangle(sizes, 96) == expected
    assert rectangle([(60, 90)], 90) == (64, 90), "the longer side may be any"


def test_evaluation_pads_each_batch_as_little_as_it_can(shaped):
    batches = list(loader(shaped, batch_size=8, image_size=96, rectangular=True))
    square = loader(shaped, batch_size=8, image_size=96)
    places = {sample.image_id: sample for _, samples in square for sample in samples}
    assert sorted(ids(batches)) == list(range(42))
    shapes = [size_of(shaped.read(number).image) for number in ids(batches)]
    ratios = [width / height for height, width in shapes]
    assert ratios == sorted(ratios)
    for start, (images, samples) in zip(range(0, 42, 8), batches, strict=True):
        height, width = rectangle(shapes[start : start + 8], 96)
        assert images.shape == (len(samples), 3, height, width)
        for sample in samples:  # what the square shows, without its outermost grey
            whole, top, left = places[sample.image_id], (96 - height) // 2, (96 - width) // 2
            assert np.array_equal(sample.image, whole.image[top : top + height, left : left + width])
            assert np.array_equal(sample.masks, whole.masks[:, top : top + height, left : left + width])
            np.testing.assert_allclose(sample.boxes + np.tile([left, top], 2), whole.boxes, atol=1e-5)
    assert sum(images[0, 0].size * len(images) for images, _ in batches) < 0.75 * 42 * 96**2


def test_evaluation_in_rectangles_is_shared_among_ranks(shaped):
    shares = [ids(loader(shaped, rectangular=True, rank=rank, world_size=3)) for rank in range(3)]
    assert sorted(chain(*shares)) == list(range(42))
    assert ids(loader(shaped.by_shape(), rectangular=True)) == ids(loader(shaped, rectangular=True))


def steps(found, epoch: int = 0, ranks: int = 1, batch_size: int = 8, seed: int = 3, **options) -> list[list[int]]:
    """The images of each training step, of all ranks."""
    shares = []
    for rank in range(ranks):
        batches = loader(
            found, batch_size, 96, shuffle=True, seed=seed, rectangular=True, rank=rank, world_size=ranks, **options
        )
        batches.set_epoch(epoch)
        shares.append([[sample.image_id for sample in samples] for _, samples in batches])
    return [sorted(chain(*parts)) for parts in zip(*shares, strict=True)]


def test_training_in_rectangles_shuffles_images_and_batches(shaped):
    first = steps(shaped, batch_size=4)
    assert [len(step) for step in first] == [4] * 10 + [2]
    assert sorted(chain(*first)) == list(range(42)), "each image once"
    assert first == steps(shaped, batch_size=4) == steps(shaped, batch_size=4, num_workers=2)
    others = [steps(shaped, 1, batch_size=4), steps(shaped, seed=4, batch_size=4)]
    assert sum(step in first for other in others for step in other) < 3, "other images meet"
    kinds = [{SHAPES[number * 7 % 5] for number in step} for step in steps(shaped)[:5]]
    assert sum(map(len, kinds)) <= 5 + 4, "sorted by five shapes, five steps have four borders between them"
    shapes = [tuple(images.shape[2:]) for images, _ in loader(shaped, 8, 96, shuffle=True, rectangular=True)]
    assert len(set(shapes)) > 1
    assert set(shapes) <= {(h, w) for h in (32, 64, 96) for w in (32, 64, 96) if 96 in (h, w)}


def test_ranks_share_the_steps_of_one_process(shaped):
    assert steps(shaped, ranks=2, batch_size=4)[:5] == steps(shaped)[:5]
    assert steps(shaped, ranks=2, batch_size=[5, 3]) == steps(shaped)[:5], "a rest of two leaves none for a rank"


@pytest.mark.parametrize("sizes", [[8, 8], [8, 3, 5]])
def test_an_interrupted_epoch_in_rectangles_goes_on(shaped, sizes):
    """With other batches too: no image is lost or comes twice."""
    seen: list[int] = []
    parts: list[tuple[int, int, int]] = []
    for turn, size in enumerate(sizes):
        batches = loader(shaped, size, 96, shuffle=True, rectangular=True, num_workers=0, augment="basic")
        if turn:
            batches.resume(0, parts)
        remaining = list(batches)
        if turn and sizes[0] == size:  # bit for bit what would have come
            whole = list(loader(shaped, size, 96, shuffle=True, rectangular=True, num_workers=0, augment="basic"))
            assert all(np.array_equal(one, other) for (one, _), (other, _) in zip(remaining, whole[2:], strict=True))
        last = turn == len(sizes) - 1
        seen += ids(remaining if last else remaining[:2])
        parts = batches.position(batches.first_batch + 2)
    assert sorted(seen) == list(range(42))


def test_rectangles_of_several_sizes_hold_combined_images(shaped):
    options = {"shuffle": True, "rectangular": True, "augment": "basic", "batch_size": 8, "sizes": [64, 96]}
    mixed = loader(shaped, mix=Mix(mosaic=0.5, mixup=0.5), mixed_epochs=1, **options)
    plain = loader(shaped, **options)
    shapes = [images.shape for images, _ in mixed]
    assert shapes == [images.shape for images, _ in plain]
    assert {max(shape[2:]) for shape in shapes} == {64, 96}

"""COCO's average precision: equal to what pycocotools computes from files, and right in the cases without numbers."""

import json

import numpy as np
import pytest
from omegaconf import OmegaConf
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import scene_files
from scene_files import coco_content, write_coco
from src.kit.scenes import read_coco
from src.kit.scenes.matching import confuse, object_rows, object_scores
from src.kit.scenes.scores import SCORES, SHOWN_SCORE, SIZES, Objects, coco_scores, encode, measure
from src.kit.training import load_task

SIDE = 240
CLASSES = ("cat", "dog", "owl", "never")


def objects(boxes, labels, scores=None, crowd=None, masks=None) -> Objects:
    count = len(labels)
    return Objects(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(labels, np.int64),
        np.ones(count, np.float32) if scores is None else np.array(scores, np.float32),
        np.zeros(count, bool) if crowd is None else np.array(crowd, bool),
        None if masks is None else encode(masks),
    )


NOTHING = objects([], [], masks=np.zeros((0, SIDE, SIDE), bool))


def test_objects_of_an_image_are_counted():
    true = objects(
        [[0, 0, 10, 10], [50, 50, 90, 90], [0, 50, 10, 60], [50, 0, 90, 20]], [0, 1, 2, 0], crowd=[0, 0, 0, 1]
    )
    boxes = [[0, 0, 10, 9], [1, 0, 10, 10], [50, 50, 90, 80], [0, 50, 10, 60], [0, 50, 10, 60]]
    found = objects(boxes, [0, 0, 1, 0, 2], [0.5, 0.9, 0.3, 0.8, 0.1])
    (row, empty) = object_rows([(found, true), (NOTHING, NOTHING)])
    # a second box for the first object and one of another class are wrong; the last one is too unsure to be shown
    assert row == {"true": 3, "predicted": 4, "found": 2, "missed": 1, "wrong": 2}
    assert set(empty.values()) == {0}


def test_confused_invented_and_missed_objects_are_told_apart():
    true = objects(
        [[0, 0, 10, 10], [50, 50, 90, 90], [0, 50, 10, 60], [50, 0, 90, 20]], [0, 1, 2, 0], crowd=[0, 0, 0, 1]
    )
    # the surest leaves the object to one of its class; the last two lie in the crowd, and one is of the crowd's class
    boxes = [[0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 90, 80], [200, 0, 210, 9], [55, 2, 60, 8], [60, 2, 70, 8]]
    found = objects(boxes, [1, 0, 2, 2, 0, 1], [0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    expected = np.zeros((4, 4), int)
    expected[0, 0] = expected[1, 2] = expected[2, 3] = expected[3, 2] = 1
    expected[3, 1] = 2
    assert np.array_equal(confuse(found, true, 3, 0.3), expected)
    assert confuse(found, true, 3, 0.85).sum(axis=0).tolist() == [0, 1, 0, 2], "only the surest, for another class"


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_the_threshold_has_the_best_f1_of_all(kind):
    kept = images(8)
    scores = object_scores(kept, CLASSES, kind, None)

    def counted(least: float) -> tuple[float, float, float]:
        rows = object_rows(kept, least, kind)
        true, shown, found = (sum(row[name] for row in rows) for name in ("true", "predicted", "found"))
        return 2 * found / (true + shown), found / shown, found / true

    every = np.unique(np.concatenate([predicted.scores for predicted, _ in kept]))
    assert scores["f1"] == pytest.approx(max(counted(least)[0] for least in every))
    assert counted(scores["threshold"]) == pytest.approx((scores["f1"], scores["precision"], scores["recall"]))
    given = object_scores(kept, CLASSES, kind, 0.5)
    assert (given["f1"], given["precision"], given["recall"]) == pytest.approx(counted(0.5))
    matrix = np.array(given["confusion_matrix"])
    assert np.trace(matrix) / matrix[:-1].sum() == pytest.approx(given["recall"])
    assert given["per_class"][0]["recall"] == pytest.approx(matrix[0, 0] / matrix[0].sum())
    assert given["map"] == coco_scores(kept, CLASSES, kind)["map"]
    nothing = object_scores([(NOTHING, NOTHING)], CLASSES, kind, None)
    assert (nothing["threshold"], nothing["f1"]) == (SHOWN_SCORE, 0)


def ellipses(boxes: np.ndarray) -> np.ndarray:
    """Masks (M, H, W) that fill their boxes as well as ellipses do."""
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    across = (x - centre[:, 0, None, None]) / half[:, 0, None, None]
    down = (y - centre[:, 1, None, None]) / half[:, 1, None, None]
    return across**2 + down**2 <= 1


def images(count: int = 30) -> list[tuple[Objects, Objects]]:
    """Objects of all sizes, some of them crowds, and predictions that are shifted, missing, doubled or wrong."""
    random = np.random.default_rng(3)
    kept = []
    for number in range(count):
        m = int(random.integers(0, 7)) if number else 0  # the first image is empty
        corner, size = random.uniform(0, 60, (m, 2)), random.uniform(8, 160, (m, 2))
        true = np.concatenate([corner, corner + size], axis=1).astype(np.float32)
        labels, crowd = random.integers(0, 3, m), random.random(m) < 0.2
        place = random.integers(0, m, 2 * m) if m else np.zeros(0, np.int64)
        found = np.concatenate([true[place] + random.normal(0, 3, (len(place), 4)), [[1, 1, 30, 40]]])
        found = np.sort(found.reshape(-1, 2, 2), axis=1).reshape(-1, 4).astype(np.float32)
        wrong = random.random(len(found)) < 0.2
        guessed = np.where(wrong, random.integers(0, 3, len(found)), np.append(labels[place], 0))
        scores = random.random(len(found), np.float32)
        kept.append(
            (
                objects(found, guessed, scores, masks=ellipses(found)),
                objects(true, labels, crowd=crowd, masks=ellipses(true)),
            )
        )
    return kept


def as_files(kept, kind: str, folder) -> COCOeval:
    """The same images as COCO's files, evaluated by pycocotools alone."""
    from pycocotools.mask import area

    truth, found = [], []
    for image, (predicted, true) in enumerate(kept):
        for source, rows in ((true, truth), (predicted, found)):
            for k, (x1, y1, x2, y2) in enumerate(source.boxes.tolist()):
                row = {"image_id": image + 7, "category_id": int(source.labels[k]) + 1}
                code = source.outlines[k]
                if kind == "segm" or source is true:
                    row["segmentation"] = {"size": code["size"], "counts": code["counts"].decode()}
                if kind == "bbox" or source is true:
                    row["bbox"] = [x1, y1, x2 - x1, y2 - y1]
                if source is true:
                    size = float(area(code)) if kind == "segm" else (x2 - x1) * (y2 - y1)
                    row |= {"id": len(rows) + 1, "area": size, "iscrowd": int(source.crowd[k])}
                else:
                    row["score"] = float(source.scores[k])
                rows.append(row)
    content = {
        "images": [{"id": image + 7, "width": SIDE, "height": SIDE} for image in range(len(kept))],
        "categories": [{"id": k + 1, "name": name} for k, name in enumerate(CLASSES)],
        "annotations": truth,
    }
    (folder / "truth.json").write_text(json.dumps(content), "utf-8")
    (folder / "found.json").write_text(json.dumps(found), "utf-8")
    coco = COCO(str(folder / "truth.json"))
    counter = COCOeval(coco, coco.loadRes(str(folder / "found.json")), kind)
    counter.evaluate()
    counter.accumulate()
    counter.summarize()
    return counter


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_the_numbers_are_those_of_pycocotools(tmp_path, kind):
    kept = images()
    scores = coco_scores(kept, CLASSES, kind)
    counter = as_files(kept, kind, tmp_path)
    for name, place in SCORES.items():
        assert 0 < scores[name] < 1, name
        assert scores[name] == pytest.approx(counter.stats[place], abs=1e-9), name
    precision = counter.eval["precision"][:, :, :, 0, 2]
    for k, row in enumerate(scores["per_class"][:3]):
        assert row["map"] == pytest.approx(precision[..., k].mean())
        assert row["map50"] == pytest.approx(precision[0, :, k].mean())
        assert row["objects"] == sum(int(((true.labels == k) & ~true.crowd).sum()) for _, true in kept)
    assert scores["per_class"][3] == {"class": "never", "map": None, "map50": None, "objects": 0}


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_a_perfect_prediction_scores_1_whatever_classes_do_not_occur(kind):
    kept = [(true, true) for _, true in images()]
    alone = [
        (objects(t.boxes[~t.crowd], t.labels[~t.crowd], masks=ellipses(t.boxes[~t.crowd])), true) for t, true in kept
    ]
    for case in (kept, alone):  # finding a crowd too changes nothing
        scores = coco_scores(case, CLASSES, kind)
        assert scores["map"] == scores["map50"] == scores["recall100"] == pytest.approx(1)


def test_predictions_in_a_crowd_are_neither_right_nor_wrong():
    one, crowd = [0, 0, 20, 20], [50, 50, 150, 150]
    true = objects([one, crowd], [0, 0], crowd=[False, True])
    inside = [[60, 60, 80, 80], [100, 100, 120, 120]]
    found = objects([*inside, one], [0, 0, 0], [0.9, 0.8, 0.7])
    assert coco_scores([(found, true)], CLASSES, "bbox")["map"] == pytest.approx(1)
    alone = objects([one], [0])
    assert coco_scores([(found, alone)], CLASSES, "bbox")["map"] == pytest.approx(1 / 3)


def test_half_of_the_objects_found_is_half_of_the_precision():
    true = objects([[0, 0, 20, 20], [40, 40, 60, 60]], [1, 1])
    found = objects([[0, 0, 20, 20]], [1], [0.6])
    scores = coco_scores([(found, true)], CLASSES, "bbox")
    assert scores["map"] == pytest.approx(51 / 101), "recalls 0.00 to 0.50 of the 101 that are looked at"
    assert scores["recall100"] == pytest.approx(0.5)


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_nothing_predicted_nothing_there_or_neither_scores_0(kind):
    box = [[10, 10, 50, 50]]
    some = objects(box, [0], masks=ellipses(np.array(box, np.float32)))
    for predicted, true in ((NOTHING, some), (some, NOTHING), (NOTHING, NOTHING)):
        scores = coco_scores([(predicted, true)] * 2, CLASSES, kind)
        there = {"map_medium"} if len(true) else set()
        assert {name for name in SCORES if scores[name] is None} == set(SIZES) - there, "no object of that size"
        assert {scores[name] for name in {*SCORES} - {*SIZES} | there} == {0.0}
        maps = [row["map"] for row in scores["per_class"]]
        assert maps == [0.0 if len(true) else None, None, None, None]


def test_an_empty_mask_is_an_object_that_nobody_can_find():
    box = np.array([[10, 10, 50, 50], [60, 60, 90, 90]], np.float32)
    masks = ellipses(box)
    masks[1] = False
    true = objects(box, [0, 0], masks=masks)
    found = objects(box, [0, 0], [0.9, 0.8], masks=masks)
    assert coco_scores([(found, true)], CLASSES, "segm")["map"] == pytest.approx(51 / 101)
    assert coco_scores([(found, true)], CLASSES, "bbox")["map"] == pytest.approx(1)


def test_nothing_is_printed(capsys):
    coco_scores(images(2), CLASSES, "bbox")
    assert capsys.readouterr().out == ""


def test_sizes_are_told_in_pixels_of_the_network_and_of_the_photos(tmp_path):
    """A photo of 256 pixels becomes 64: objects of 40 x 40 are medium in it, and small in the network's input."""
    side, square = 256, [40, 40, 80, 40, 80, 80, 40, 80]
    rows = [
        {"id": 1, "image_id": 1, "category_id": 3, "bbox": [40, 40, 40, 40], "segmentation": [square], "area": 1600},
        {"id": 2, "image_id": 5, "category_id": 3, "bbox": [40, 40, 40, 40], "segmentation": [square], "area": 900},
    ]
    content = coco_content(*rows)
    content["images"] = [{**entry, "width": side, "height": side} for entry in content["images"]]
    file = write_coco(tmp_path, content)
    for number in (1, 5):
        scene_files.image(tmp_path / "train" / f"{number}.png", (side, side))
    scenes = read_coco(file, tmp_path / "train")
    box = np.array([[10, 10, 20, 20]], np.float32)
    kept = [(objects(box, np.array([0]), masks=ellipses(box)), objects(box, np.array([0]), masks=ellipses(box)))] * 2
    cfg = OmegaConf.create({"task": "detection", "data": {"name": "x", "image_size": 64}})
    small = load_task("detection").evaluate(kept, scenes.classes)
    assert (small["map_small"], small["map_medium"]) == (pytest.approx(1), None)
    own = load_task("detection").original_scores(cfg, kept, scenes.classes, scenes)
    assert own["map_medium_original"] == pytest.approx(1), "1,600 pixels"
    assert own["map_small_original"] == pytest.approx(1), "900 pixels: COCO's own area counts, not the box's"
    assert own["map_large_original"] is None
    assert "in pixels of the network's input of 64 x 64" in own["note"]
    assert "100 best detections" in own["note"]
    masks = load_task("instance_segmentation").original_scores(cfg, kept, scenes.classes, scenes)
    assert masks["mask_map_medium_original"] == masks["map_medium_original"] == pytest.approx(1)


def test_areas_in_the_photo_equal_cocos_own_evaluation():
    """The scores by size of predictions in a quarter of the size are those that pycocotools gives in the photo."""
    kept = images()
    areas = [tuple(measure(each, "bbox") * 16 for each in pair) for pair in kept]
    large = [tuple(objects(each.boxes * 4, each.labels, each.scores, each.crowd) for each in pair) for pair in kept]
    scores, whole = coco_scores(kept, CLASSES, "bbox", areas), coco_scores(large, CLASSES, "bbox")
    for name in SCORES:
        assert scores[name] == pytest.approx(whole[name], abs=1e-9), name

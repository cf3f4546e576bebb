"""Predictions without a framework: cards, preparation as in training, outputs, and what the core imports."""

import io
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from paths import TEMPLATE
from src.kit.errors import UserError
from src.kit.inference import Card, Ensemble, Predictor, fused_outputs, parse_card, postprocess, preprocess, read_card
from src.kit.inference_scenes import canvas_of, decode, encode_mask, fuse
from src.kit.loading import ArrayImages, FileImages, Loader, Split
from src.kit.scenes import Sample, SceneLoader
from src.kit.scenes.augmentation import build_augmentation
from src.kit.tabular import Table
from src.kit.tabular.preprocessing import fit
from test_scenes import scenes

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
IMAGES = {"shape": [3, 48, 48], "mean": MEAN, "std": STD, "flippable": True}


def card(kind="images", classes=("cat", "dog", "fox"), output=None, **inputs) -> Card:
    return Card("some task", kind, classes, IMAGES | inputs, output or {"kind": "classes"}, model="small_cnn")


def photo(height=90, width=120, seed=0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def test_a_card_is_read_as_it_was_written(tmp_path):
    written = replace(card(classes=("猫", "b")), metrics={"test": {"accuracy": 0.9}}, versions={"python": "3.11"})
    assert read_card(written.write(tmp_path).parent) == written
    assert [path.name for path in tmp_path.iterdir()] == ["card.json"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not a card"),
        ("[1]", "is not a card"),
        ("{}", "is not a card"),
        ('{"format": 1, "classes": ["a"]}', "is not a card"),
        ('{"format": 2}', "has format 2, and this project reads up to 1: update"),
    ],
)
def test_a_damaged_card_is_one_sentence(text, message):
    with pytest.raises(UserError, match=message):
        parse_card(text, "card.json")


def test_unknown_fields_of_a_card_are_ignored():
    values = {**json.loads(card().to_json()), "colour": "red"}
    assert parse_card(json.dumps(values), "card.json") == card()


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_files_are_prepared_as_the_validation_data_are(tmp_path, suffix):
    paths = [tmp_path / f"{number}.{suffix}" for number in range(3)]
    for number, path in enumerate(paths):
        Image.fromarray(photo(90 + 200 * number, 120, number)).save(path, quality=90)
    split = Split(FileImages(paths, 48), np.zeros(3, np.int64), ("cat", "dog", "fox"))
    ((expected, _),) = Loader(split, 3, MEAN, STD)
    np.testing.assert_array_equal(preprocess(card(), paths).arrays, expected)
    np.testing.assert_array_equal(preprocess(card(), [path.read_bytes() for path in paths]).arrays, expected)


def test_arrays_are_prepared_as_the_validation_data_are():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 60, 60, 1), dtype=np.uint8)
    split = Split(ArrayImages(pixels, 48), np.zeros(4, np.int64), ("cat",))
    ((expected, _),) = Loader(split, 4, [0.5], [0.2])
    grey = card(shape=[1, 48, 48], mean=[0.5], std=[0.2])
    np.testing.assert_array_equal(preprocess(grey, list(pixels)).arrays, expected)
    np.testing.assert_array_equal(preprocess(grey, list(pixels[..., 0])).arrays, expected)
    np.testing.assert_array_equal(preprocess(grey, list(np.repeat(pixels, 3, axis=3))).arrays, expected)


def test_a_wide_array_is_cropped_as_a_file_is(tmp_path):
    wide = np.zeros((48, 100, 3), np.uint8)
    wide[:, 26:74] = 200
    Image.fromarray(wide).save(tmp_path / "wide.png")
    one, other = (preprocess(card(), [source]).arrays for source in (wide, tmp_path / "wide.png"))
    np.testing.assert_array_equal(one, other)
    assert np.ptp(one[0, 0]) == 0, "only the middle"


@pytest.mark.parametrize("size", [(20, 10), (7, 31), (48, 48)])
@pytest.mark.parametrize("rectangular", [False, True])
def test_annotated_images_are_prepared_as_the_validation_data_are(tmp_path, size, rectangular):
    found = scenes(tmp_path, [0], [1], size=size)
    ((expected, _),) = SceneLoader(found, 2, MEAN, STD, 48, rectangular=rectangular)
    batch = preprocess(card("scenes", rectangular=rectangular), [found.path(0), found.path(1)])
    np.testing.assert_array_equal(batch.arrays, expected)
    assert batch.sizes == [size[::-1]] * 2


def test_rows_are_prepared_as_the_validation_data_are():
    texts = np.array(["b", "a", None, "b"], object)
    table = Table({"x": np.array([1.0, 2.0, 9.0, np.nan]), "c": texts, "code": np.array(["7", "8", "7", "8"], object)})
    fitted = fit(table, "y")
    rows = card("tabular", shape=[3], columns=fitted.to_json())
    given = [
        {"x": 1, "c": "b", "code": 7},
        {"x": 2.0, "c": "a", "code": 8},
        {"x": 9.0, "c": None, "code": "7", "more": 1},
        {"x": None, "c": "b", "code": 8.0},
    ]
    np.testing.assert_array_equal(preprocess(rows, given).arrays, fitted.transform(table))
    with pytest.raises(UserError, match="Row 2 lacks columns that the network was trained on: 'c'"):
        preprocess(rows, [given[0], {"x": 1, "code": 7}])
    with pytest.raises(UserError, match="'x' must hold numbers, but row 1 has 'many'"):
        preprocess(rows, [{"x": "many", "c": "b", "code": 7}])
    with pytest.raises(UserError, match="A row maps columns to values"):
        preprocess(rows, ["x=1"])


def test_numbers_are_in_their_unit():
    found = postprocess(card("tabular", ("price",), {"kind": "number", "mean": 10.0, "scale": 2.0}), ONE, [(1, 1)])
    assert found == [{"value": 12.0}]


ONE = np.ones((1, 1), np.float32)


def boxes(*rows: list[float]) -> np.ndarray:
    return np.array([rows], np.float32)


def test_boxes_are_in_the_pixels_of_the_image():
    found = boxes([12, 0, 24, 48, 0.2, 0], [0, 12, 48, 36, 0.5, 1], [0, 0, 48, 12, 0.9, 0], [0, 0, 0, 0, 0.0, 0])
    (wide,) = postprocess(card("scenes", output={"kind": "boxes", "score": 0.1}), found, [(100, 200)])
    named = [(each["class"], each["box"], round(each["score"], 3)) for each in wide["objects"]]
    assert named == [("dog", [0, 0, 200, 100], 0.5), ("cat", [50, 0, 100, 100], 0.2)], "the third lies on the grey rim"
    json.dumps(wide)


def test_masks_are_drawn_at_the_size_of_the_image():
    row = np.concatenate([[0, 12, 24, 36, 0.9, 2], np.ones(4)])
    output = {"kind": "masks", "side": 2, "score": 0.25}
    (wide,) = postprocess(card("scenes", output=output), row[None, None].astype(np.float32), [(100, 200)])
    (fox,) = wide["objects"]
    expected = np.zeros((100, 200), bool)
    expected[:, :100] = True
    assert fox["mask"] == encode_mask(expected)


def test_class_maps_have_the_size_of_the_image():
    logits = np.zeros((1, 3, 48, 48), np.float32)
    logits[0, 0, :12] = logits[0, 0, 36:] = 50  # the grey rim, which no image shows
    logits[0, 1, 12:36, :24], logits[0, 2, 12:36, 24:] = 9, 9
    (found,) = postprocess(card("scenes", output={"kind": "class_map"}), logits, [(100, 200)])
    assert found["class_map"].shape == (100, 200)
    assert found["class_map"].dtype == np.uint8
    assert (found["class_map"][:, :99] == 1).all()
    assert (found["class_map"][:, 101:] == 2).all()
    assert [each["class"] for each in found["classes"]] == ["dog", "fox"]
    assert sum(each["share"] for each in found["classes"]) == pytest.approx(1)
    assert all(each["score"] > 0.95 for each in found["classes"])


def test_boxes_of_several_networks_are_fused():
    one = np.array([[0, 0, 10, 10, 0.8, 0], [50, 50, 60, 60, 0.6, 1]], np.float32)
    other = np.array([[0, 0, 12, 10, 0.4, 0], [0, 0, 10, 10, 0.9, 2]], np.float32)
    fused = fuse(card("scenes", output={"kind": "boxes", "score": 0.1}), [one, other])
    expected = [[0, 0, 10.667, 10, 0.6, 0], [0, 0, 10, 10, 0.45, 2], [50, 50, 60, 60, 0.3, 1]]
    np.testing.assert_allclose(fused, expected, atol=1e-3)


def test_fusing_keeps_the_class():
    rng = np.random.default_rng(0)
    for number in range(60):
        rows = [np.array([[0, 0, 10, 10, score, number]], np.float32) for score in rng.uniform(0.1, 1, 5)]
        fused = fuse(card("scenes", output={"kind": "boxes", "score": 0.1}), rows)
        assert fused[:, 5].tolist() == [number], "all are one object of the same class"


@pytest.mark.parametrize("batch", ["batch", 2])
def test_an_exported_network_predicts(tmp_path, batch):
    onnx = pytest.importorskip("onnx")
    make = onnx.helper
    kinds = [make.make_tensor_value_info(name, 1, shape) for name, shape in (("x", [batch, 3]), ("y", [batch, 2]))]
    weights = onnx.numpy_helper.from_array(np.array([[1, 0], [0, 1], [0, 0]], np.float32), "w")
    graph = make.make_graph([make.make_node("MatMul", ["x", "w"], ["y"])], "g", kinds[:1], kinds[1:], [weights])
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 20)], ir_version=10)
    table = Table({name: np.array([-1.0, 1.0]) for name in "abc"})
    folder = (
        replace(card("tabular", ("no", "yes"), shape=[3], columns=fit(table, "y").to_json())).write(tmp_path).parent
    )
    onnx.save(model, folder / "model.onnx")
    rows = [{"a": number, "b": 0, "c": 0} for number in (-2, -1, 0, 1, 2)]
    for path in (folder, folder / "model.onnx"):
        found = Predictor.open(path, threads=1).predict(rows, batch_size=3)
        expected = 1 / (1 + np.exp(-np.array([-2, -1, 0, 1, 2])))
        np.testing.assert_allclose([each["scores"]["no"] for each in found], expected, atol=1e-6)
    (folder / "model.onnx").write_bytes(b"no network")
    with pytest.raises(UserError, match=r"model\.onnx cannot be loaded .*: export the run again"):
        Predictor.open(folder)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("none.png", "none.png does not exist"),
        (b"no image", "Cannot decode an image of 8 bytes"),
        (np.zeros((4, 4), np.float32), r"not float32 of shape \(4, 4\)"),
        (np.zeros((4, 4, 7), np.uint8), r"not uint8 of shape \(4, 4, 7\)"),
        (np.zeros((0, 4, 3), np.uint8), r"not uint8 of shape \(0, 4, 3\)"),
    ],
)
def test_what_is_no_image_is_one_sentence(source, message):
    with pytest.raises(UserError, match=message):
        preprocess(card(), [source])


def test_logits_become_classes():
    (one,) = postprocess(card(), np.log(np.array([[0.2, 0.7, 0.1]], np.float32)), [(90, 120)])
    assert one["class"] == "dog"
    assert one["score"] == pytest.approx(0.7)
    assert list(one["scores"]) == ["dog", "cat", "fox"]
    json.dumps(one)


def test_a_kind_that_the_project_lacks_is_one_sentence():
    for kind in ("sound", "..errors", ""):
        with pytest.raises(UserError, match="This project has no task=some task"):
            preprocess(card(kind), [])


def test_masks_are_encoded_as_pycocotools_does_it():
    from pycocotools import mask as reference

    rng = np.random.default_rng(0)
    masks = [rng.random((13, 17)) < share for share in (0.0, 0.03, 0.5, 0.97, 1.1)]
    masks += [np.pad(np.ones((30, 20), bool), ((200, 300), (100, 50)))]
    for mask in masks:
        expected = reference.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert encode_mask(mask) == {"size": list(mask.shape), "counts": expected["counts"].decode()}
        np.testing.assert_array_equal(reference.decode(encode_mask(mask)).astype(bool), mask)


def test_a_folder_without_a_network_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="does not exist: give the folder of a run or of an export"):
        Predictor.open(tmp_path / "none")
    (tmp_path / "notes.md").touch()
    with pytest.raises(UserError, match="is a file: give the folder of a run or of an export"):
        Predictor.open(tmp_path / "notes.md")
    with pytest.raises(UserError, match="holds no checkpoint"):
        Predictor.open(tmp_path)


ALONE = """
import sys

class Missing:
    def find_spec(self, name, *rest):
        if name.partition(".")[0] in ("torch", "paddle", "omegaconf", "cv2", "simplejpeg", "pyarrow", "matplotlib"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
from src.kit import inference, inference_scenes, inference_tabular
print(sorted(name for name in sys.modules if name.startswith("src.kit.")))
card = inference.Card("t", "images", ("a", "b"), {"shape": [3, 8, 8], "mean": [0.5] * 3, "std": [0.5] * 3}, {})
print(inference.preprocess(card, [sys.argv[1]]).arrays.shape)
"""


def test_the_core_needs_numpy_and_pillow_only(tmp_path):
    Image.fromarray(photo()).save(tmp_path / "photo.jpg")
    command = [sys.executable, "-c", ALONE, str(tmp_path / "photo.jpg")]
    done = subprocess.run(command, cwd=TEMPLATE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names, shape = done.stdout.splitlines()
    assert shape == "(1, 3, 8, 8)"
    own = ("src.kit.errors", "src.kit.storage", "src.kit.inference", "src.kit.tabular")
    assert all(name.startswith(own) for name in eval(names)), names


class Bright(Predictor):
    """Finds the bright rectangle of a dark image: as a class map, or as a box whose mask shows its brighter half."""

    def compute(self, arrays):
        bright = arrays[:, 0] > 0.5
        if self.card.output["kind"] == "class_map":
            return np.stack([8.0 * ~bright, 8.0 * bright], axis=1).astype(np.float32)
        rows = np.zeros((len(arrays), 1, 10), np.float32)
        for row, image, mask in zip(rows[:, 0], arrays[:, 0], bright, strict=True):
            if mask.any():
                ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
                left, right = (half.mean() for half in np.array_split(image[ys][:, xs], 2, axis=1))
                row[:] = xs[0], ys[0], xs[-1] + 1, ys[-1] + 1, 0.9, 1, *[left > right, left <= right] * 2
        return rows


DARK = {"mean": [0.0] * 3, "std": [1.0] * 3}
CLASS_MAP, MASKS = {"kind": "class_map"}, {"kind": "masks", "side": 2, "score": 0.3}


def bright(output: dict, flippable: bool = True, **inputs) -> Bright:
    return Bright(card("scenes", ("dark", "bright"), output, flippable=flippable, **DARK, **inputs))


def rectangle(height: int, width: int, top: int, left: int, bottom: int, right: int) -> np.ndarray:
    """A dark image with a bright rectangle, whose left half is brighter."""
    image = np.zeros((height, width, 3), np.uint8)
    image[top:bottom, left:right] = 180
    image[top:bottom, left : (left + right) // 2] = 250
    return image


@pytest.mark.parametrize("flippable", [True, False])
@pytest.mark.parametrize("output", [CLASS_MAP, MASKS], ids=["class map", "masks"])
def test_views_are_undone(output, flippable):
    image = rectangle(48, 48, 8, 4, 24, 20)
    one, several = bright(output, flippable), bright(output, flippable)
    several.use_views()
    assert len(several.views) == (2 if flippable else 5)
    (expected,), (found,) = one.predict([image]), several.predict([image])
    arrays = preprocess(one.card, [image]).arrays
    outputs, fused = one.compute(arrays), fused_outputs(several.card, several.views, several.compute, arrays)
    if output is CLASS_MAP:
        np.testing.assert_array_equal(found["class_map"], expected["class_map"])
        assert found["class_map"].sum() == 16 * 16
        np.testing.assert_array_equal(fused.argmax(1), outputs.argmax(1))
    else:
        assert found["objects"][0]["mask"] == expected["objects"][0]["mask"]
        assert found["objects"][0]["box"] == pytest.approx([4, 8, 20, 24])
        assert len(found["objects"]) == 1
        np.testing.assert_allclose(fused, outputs, atol=1e-5)


@pytest.mark.parametrize("flippable", [True, False])
@pytest.mark.parametrize("output", [CLASS_MAP, MASKS], ids=["class map", "masks"])
def test_rectangles_are_undone(output, flippable):
    images = [rectangle(192, 384, 20, 40, 160, 120), rectangle(128, 384, 60, 260, 100, 360)]
    inputs = {"shape": [3, 96, 96], "rectangular": True}
    one, several = bright(output, flippable, **inputs), bright(output, flippable, **inputs)
    several.use_views()
    for wide in (True, False):
        batch = images if wide else [image.transpose(1, 0, 2) for image in images]
        shape = one.kind.prepare(one.card, batch).arrays.shape
        assert shape == ((2, 3, 64, 96) if wide else (2, 3, 96, 64))
        for predictor in (one, several):
            for image, found in zip(batch, predictor.predict(batch), strict=True):
                expected = image[..., 0] > 128
                if output is CLASS_MAP:
                    assert (found["class_map"] != expected).sum() <= 4, "the corners, which are resized bilinearly"
                    continue
                ys, xs = np.flatnonzero(expected.any(axis=1)), np.flatnonzero(expected.any(axis=0))
                assert found["objects"][0]["box"] == pytest.approx([xs[0], ys[0], xs[-1] + 1, ys[-1] + 1], abs=1e-3)
    assert one.kind.prepare(one.card, [images[0], images[0].transpose(1, 0, 2)]).arrays.shape == (2, 3, 96, 96)


@pytest.mark.parametrize("rectangular", [False, True])
def test_boxes_go_back_to_where_they_were(rectangular):
    rng = np.random.default_rng(0)
    scenes_card = card("scenes", output={"kind": "boxes", "score": 0.0}, shape=[3, 640, 640], rectangular=rectangular)
    for _ in range(6):
        sizes = [tuple(rng.integers(20, 2000, 2).tolist()) for _ in range(3)]
        canvas, rows, truth = canvas_of(scenes_card, sizes), np.zeros((3, 4, 6), np.float32), []
        for own, (height, width) in zip(rows, sizes, strict=True):
            corners = np.sort(rng.uniform(0, 1, (4, 2, 2)), axis=1) * (width, height)
            truth.append(corners.reshape(4, 4).astype(np.float32))
            image = np.broadcast_to(np.uint8(0), (height, width, 3))
            labels = np.arange(4)
            placed = build_augmentation("none")(Sample(image, truth[-1], labels, labels < 0), rng, canvas)
            own[:, :4], own[:, 4] = placed.boxes, [0.9, 0.8, 0.7, 0.6]
        for found, boxes in zip(decode(scenes_card, rows, sizes), truth, strict=True):
            np.testing.assert_allclose(found[:, :4], boxes, atol=1e-3)


def test_tiles_find_what_is_too_small_in_the_whole_image():
    image = rectangle(400, 700, 310, 130, 322, 140)
    one, several = bright(MASKS), bright(MASKS)
    several.use_tiles()
    assert several.tile == 48
    (found,) = several.predict([image])
    assert [each["box"] for each in found["objects"]] == [[130, 310, 140, 322]]
    assert one.predict([image]) == [{"objects": []}]
    several.use_tiles(60)
    (found,) = several.predict([image])
    assert found["objects"][0]["box"] == pytest.approx([130, 310, 140, 322], abs=1.5)
    assert len(found["objects"]) == 1


def test_tiles_of_class_maps_cover_the_image():
    image = rectangle(100, 130, 20, 30, 81, 77)
    predictor = bright(CLASS_MAP)
    predictor.use_tiles()
    (found,) = predictor.predict([image])
    np.testing.assert_array_equal(found["class_map"], image[..., 0] > 128)
    (small,) = predictor.predict([image[:40, :44]])
    assert small["class_map"].shape == (40, 44)


def test_an_ensemble_is_of_one_task_and_the_same_classes():
    boxes, maps = bright({"kind": "boxes", "score": 0.5}), bright(CLASS_MAP)
    other = Bright(replace(boxes.card, classes=("dark", "light")))
    with pytest.raises(UserError, match=r"networks for the same classes.*'bright' is 'light'"):
        Ensemble([boxes, other])
    with pytest.raises(UserError, match="An ensemble is of one task"):
        Ensemble([boxes, maps])


def test_an_ensemble_averages_and_reads_for_each_member():
    small = Bright(replace(bright(CLASS_MAP).card, input={**IMAGES, **DARK, "shape": [3, 24, 24]}))
    image = rectangle(48, 48, 8, 4, 24, 20)
    (found,) = Ensemble([bright(CLASS_MAP), small]).predict([image])
    np.testing.assert_array_equal(found["class_map"], image[..., 0] > 128)
    grey = card("images", ("a", "b"), shape=[1, 8, 8], mean=[0.0], std=[1.0])
    ensemble = Ensemble([Bright(grey), Bright(replace(grey, input={**grey.input, "shape": [1, 16, 16]}))])
    assert [item.shape for item in ensemble.read(png())] == [(8, 8, 3), (16, 16, 3)]


def png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(photo()).save(file, "png")
    return file.getvalue()


def test_what_has_one_view_or_no_tiles_is_one_sentence():
    with pytest.raises(UserError, match="Images of 8 pixels have one view"):
        Bright(card(shape=[1, 8, 8], flippable=False)).use_views()
    with pytest.raises(UserError, match="Only images have several views"):
        Bright(card("tabular", shape=[3])).use_views()
    with pytest.raises(UserError, match="Tiles are for objects and class maps"):
        Bright(card()).use_tiles(64)

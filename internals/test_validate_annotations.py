"""Each thing that can be wrong with a label file, an annotation file or a folder is found on data that shows it."""

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from checked_data import class_folders, coco_folder, configuration, found, picture, run, yolo_folder
from src.kit.catalog import build_dataset, download_dataset
from src.kit.checks import check
from src.kit.config.compose import load_config
from src.kit.errors import UserError
from src.kit.scenes_checks import gap


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return class_folders(tmp_path)


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    return yolo_folder(tmp_path)


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    return coco_folder(tmp_path)


def change(root: Path, section: str, number: int, **values: object) -> None:
    """Change an entry of the training split's annotation file."""
    path = root / "annotations" / "train.json"
    content = json.loads(path.read_text("utf-8"))
    content[section][number].update(values)
    path.write_text(json.dumps(content), "utf-8")


def test_class_folders_without_a_fault_have_no_findings(folder):
    assert found("image_folder", folder) == {}


def test_yolo_without_a_fault_has_no_findings(yolo):
    result = run("yolo_folder", yolo)
    assert result.findings == []
    assert result.source.counts == {"train": {"cat": 2, "dog": 2}, "val": {"cat": 1, "dog": 1}}


def test_coco_without_a_fault_has_no_findings(coco):
    result = run("coco_folder", coco)
    assert result.findings == []
    assert result.source.counts == {"train": {"cat": 2, "dog": 2}, "val": {"cat": 2, "dog": 2}}


def test_faults_of_class_folders(folder):
    (folder / "train" / "bird").mkdir()
    (folder / "train" / "cat" / "notes.txt").write_text("not an image")
    (folder / "train" / "cat" / "scan.jp2").write_bytes(b"II*\0")
    picture(folder / "train" / "stray.jpg", 50)
    picture(folder / "val" / "dgo" / "1.jpg", 51)
    picture(folder / "train" / "dog" / "small.png", 52, (3, 40))
    assert found("image_folder", folder) == {
        "empty_class": 1,
        "not_an_image": 2,
        "no_class": 1,
        "class_only_here": 1,
        "tiny": 1,
    }


def test_class_balance_and_a_single_class(folder):
    for number in range(27):
        picture(folder / "train" / "cat" / f"more{number}.png", 60 + number)
    assert found("image_folder", folder) == {"imbalance": 1}
    shutil.rmtree(folder / "train" / "dog")
    shutil.rmtree(folder / "val" / "dog")
    assert found("image_folder", folder) == {"structure": 1}


def test_folders_that_are_no_data_set_are_refused_in_one_sentence(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        run("image_folder", tmp_path / "nowhere")
    for name in ("yolo_folder", "coco_folder"):
        with pytest.raises(UserError, match="holds no"):
            run(name, tmp_path)
    with pytest.raises(UserError, match="Unknown data set 'nonsense'"):
        run("nonsense", tmp_path)


def test_a_mixture_is_checked_as_training_gets_it():
    cfg = load_config(["data=mixture", "data.sources=[{data: digits}]", "data.image_size=8"])
    source = check(cfg, 2).source
    assert len(source.entries) == 1797
    assert sum(sum(counts.values()) for counts in source.counts.values()) == 1797


def test_an_annotated_data_set_of_your_own_is_recognised_by_its_files(tmp_path):
    for name, make in (("coco", coco_folder), ("yolo", yolo_folder)):
        root = make(tmp_path / name)
        (root / "train.txt").write_text("")
        result = run("my_own", root)
        assert (result.findings, result.movable) == ([], True)
        assert sum(result.source.counts["train"].values()) == 4


def test_grey_images_are_odd_only_among_colour_ones(folder):
    for path in sorted(folder.rglob("*.jpg"))[:2]:
        Image.open(path).convert("L").save(path)
    assert found("image_folder", folder) == {"grey": 2}
    for path in folder.rglob("*.jpg"):
        Image.open(path).convert("L").save(path)
    assert found("image_folder", folder) == {}


@pytest.mark.parametrize(
    ("line", "kind", "words"),
    [
        ("0 0.5 0.5 0 0.4", "box_empty", "no area"),
        ("0 0.5 0.5 0.2 -0.4", "box_empty", "no area"),
        ("1 1.6 0.5 0.2 0.2", "box_outside", "outside the image of 64 x 48"),
        ("1 0.9 0.5 0.4 0.2", "box_beyond", "beyond the image"),
        ("0 0.5 0.5", "polygon_short", "2 coordinates"),
        ("0 0.5 0.5 0.4", "annotation_invalid", "3 coordinates"),
        ("0", "annotation_invalid", "0 coordinates"),
        ("0 32 24 10 10", "annotation_invalid", "no fractions"),
        ("0 nan 0.5 0.4 0.4", "annotation_invalid", "no fractions"),
        ("cat 0.5 0.5 0.4 0.4", "class_unknown", "'cat' is no class number"),
        ("-1 0.5 0.5 0.4 0.4", "class_unknown", "'-1'"),
        ("2 0.5 0.5 0.4 0.4", "class_unknown", "the class is 2, but there are 2"),
        ("0 a b c d", "annotation_invalid", "'0 a b c d'"),
    ],
)
def test_faulty_yolo_lines_are_named_by_their_number(yolo, line, kind, words):
    path = yolo / "labels" / "train" / "a.txt"
    path.write_text(f"0 0.5 0.5 0.4 0.4\n\n{line}\n1 0.5 0.5 0.4 0.4\n", "utf-8")
    (finding,) = run("yolo_folder", yolo).findings
    assert (finding.kind, finding.path) == (kind, "images/train/a.jpg")
    assert finding.sentence.startswith("labels/train/a.txt, line 3: ")
    assert words in finding.sentence


@pytest.mark.parametrize("data", ["image_folder", "coco_folder", "yolo_folder", "mask_folder"])
@pytest.mark.parametrize("file", ["mine/data.yaml", "mine/annotations/train.json"])
def test_a_file_in_place_of_the_folder_is_one_sentence(tmp_path, data, file):
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text("names: [cat]\n", "utf-8")
    task = {"image_folder": "classification", "mask_folder": "segmentation"}.get(data, "detection")
    cfg = load_config([f"task={task}", f"data={data}", f"data.root={tmp_path / file}"])
    for read in (lambda: build_dataset(cfg, "train"), lambda: run(data, tmp_path / file)):
        with pytest.raises(
            UserError, match=rf"data\.root={re.escape(str(tmp_path / file))} is a file: give the folder"
        ):
            read()
    far = OmegaConf.merge(cfg, {"data": {"root": f"https://example.org/{file}"}})
    for read in (lambda: build_dataset(far, "train"), lambda: download_dataset(far.data)):
        with pytest.raises(UserError, match=r"data\.root=https://example.* is not on this machine: give a file or"):
            read()
    (tmp_path / file).unlink()
    for read in (lambda: build_dataset(cfg, "train"), lambda: run(data, tmp_path / file)):
        with pytest.raises(UserError, match="does not exist, and a data set is a folder: give an existing one"):
            read()


def test_yolo_files_that_do_not_belong_together(yolo):
    (yolo / "labels" / "train" / "a.txt").unlink()
    (yolo / "labels" / "val" / "x.txt").write_text("0 0.5 0.5 0.4 0.4", "utf-8")
    (yolo / "labels" / "val" / "classes.txt").write_text("cat\ndog\n", "utf-8")  # LabelImg's list
    (yolo / "labels" / "val" / "c.txt").write_text("", "utf-8")  # a background image: meant
    picture(yolo / "images" / "train" / "b.png", 9)  # the same label file as b.jpg
    assert found("yolo_folder", yolo) == {
        "unlabelled": 1,
        "label_without_image": 1,
        "duplicate_id": 1,
        "empty_class": 2,
    }


def test_yolo_label_files_that_are_no_text(yolo):
    (yolo / "labels" / "train" / "a.txt").write_bytes(b"0 0.5\xff\xfe\x00")
    (yolo / "labels" / "train" / "b.txt").unlink()
    (yolo / "labels" / "train" / "b.txt").mkdir()
    assert found("yolo_folder", yolo) == {"annotation_unreadable": 2, "empty_class": 2}


def test_yolo_class_numbers_with_a_gap(yolo):
    (yolo / "data.yaml").unlink()
    assert found("yolo_folder", yolo) == {"structure": 1}
    (yolo / "labels" / "train" / "a.txt").write_text("4 0.5 0.5 0.4 0.4", "utf-8")
    result = run("yolo_folder", yolo)
    assert [finding.kind for finding in result.findings] == ["structure", "class_gap"]
    assert "from 0 to 4, 2, 3 are missing" in result.findings[1].sentence


def test_gaps_are_listed_up_to_ten():
    assert gap([3, 1, 2]) == gap([]) == ""
    assert gap([1, 3]) == "2 is missing"
    assert gap([0, 10**12]).startswith("1, 2, 3")


@pytest.mark.parametrize(
    ("section", "values", "expected"),
    [
        ("annotations", {"bbox": [1, 1, 0, 5]}, {"box_empty": 1}),
        ("annotations", {"bbox": [64, 1, 10, 5]}, {"box_outside": 1}),
        ("annotations", {"bbox": [60, 1, 10, 5]}, {"box_beyond": 1}),
        ("annotations", {"bbox": [60, 1, 5, 5]}, {}),  # one pixel: publishers round
        ("annotations", {"bbox": [1, 2, 3]}, {"annotation_invalid": 1}),
        ("annotations", {"bbox": None}, {"annotation_invalid": 1}),
        ("annotations", {"bbox": [1, 1, float("nan"), 5]}, {"annotation_invalid": 1}),
        ("annotations", {"segmentation": [[1, 1, 2, 2]]}, {"outline_unused": 1, "outline_missing": 1}),
        ("annotations", {"segmentation": [[1, 1, 2, 2, 3]]}, {"outline_unused": 1, "outline_missing": 1}),
        ("annotations", {"segmentation": [[]]}, {"outline_missing": 1}),
        (
            "annotations",
            {"segmentation": {"size": [48, 64], "counts": "x"}},
            {"outline_unused": 1, "outline_missing": 1},
        ),
        ("annotations", {"segmentation": {"size": [48, 64], "counts": [3072]}}, {}),
        ("annotations", {"segmentation": {"size": [1, 2], "counts": [2]}}, {"outline_unused": 1, "outline_missing": 1}),
        ("annotations", {"segmentation": [[0, 0, 1e8, 0, 1e8, 20]]}, {"outline_beyond": 1}),
        ("annotations", {"iscrowd": "0", "category_id": 1.0, "image_id": "0", "id": "10"}, {}),
        ("annotations", {"iscrowd": "yes"}, {"annotation_invalid": 1}),
        ("annotations", {"bbox": ["1", 1, 5, 5]}, {"annotation_invalid": 1}),
        ("annotations", {"category_id": 3}, {"class_unknown": 1}),
        ("annotations", {"category_id": [1]}, {"class_unknown": 1}),
        ("annotations", {"image_id": 99}, {"annotation_invalid": 1}),
        ("annotations", {"image_id": {}}, {"annotation_invalid": 1}),
        ("annotations", {"id": 11}, {"duplicate_id": 1}),
        ("annotations", {"id": None}, {"annotation_invalid": 1}),
        ("images", {"id": 1}, {"duplicate_id": 2, "annotation_invalid": 2}),
        ("images", {"width": 48, "height": 64}, {"size_mismatch": 1}),
        ("images", {"width": None}, {"size_mismatch": 1}),
        ("images", {"width": "64", "height": 48.0}, {}),
        ("images", {"file_name": "x" * 5000}, {"missing_image": 1, "unlabelled": 1}),
        ("images", {"file_name": "gone.jpg"}, {"missing_image": 1, "unlabelled": 1}),
        ("images", {"file_name": "../val/0.jpg"}, {"annotation_invalid": 3, "unlabelled": 1}),
        ("images", {"file_name": "1.jpg"}, {"duplicate_id": 1, "unlabelled": 1}),
        ("annotations", {"segmentation": []}, {"outline_missing": 1}),
        ("categories", {"name": "dog"}, {"class_twice": 1}),
        ("categories", {"id": 2}, {"duplicate_id": 1, "class_unknown": 2}),
        ("categories", {"id": 5}, {"category_gap": 1, "class_unknown": 2}),
        ("categories", {"id": None}, {"annotation_invalid": 1, "class_unknown": 2}),
        ("categories", {"id": "cat"}, {"annotation_invalid": 1, "class_unknown": 2}),
        ("categories", {"id": "1"}, {}),
    ],
)
def test_faults_of_coco_entries(coco, section, values, expected):
    change(coco, section, 0, **values)
    actual = found("coco_folder", coco)
    actual.pop("empty_class", None)  # follows from entries that do not count
    assert actual == expected


@pytest.mark.parametrize("outline", [[[1, 1, 2, 2]], [[1, 1, 2, 2, 3]], {"size": [48, 64], "counts": "x"}])
def test_an_outline_of_no_use_is_an_error_only_where_the_task_needs_it(coco, outline):
    change(coco, "annotations", 0, segmentation=outline)
    result = run("coco_folder", coco)
    assert {finding.severity for finding in result.findings} == {"warning"}
    kinds = {finding.kind for finding in run("coco_folder", coco, "segmentation").findings}
    assert kinds - {"polygon_short", "annotation_invalid"} == {"outline_needed"}
    assert len(kinds) == 2


def test_roboflows_category_of_the_project_is_a_note(coco):
    for split in ("train", "val"):
        path = coco / "annotations" / f"{split}.json"
        content = json.loads(path.read_text("utf-8"))
        for entry in content["categories"]:
            entry["supercategory"] = "cat"
        content["categories"].append({"id": 0, "name": "cat", "supercategory": "none"})
        path.write_text(json.dumps(content), "utf-8")
    result = run("coco_folder", coco)
    assert [(finding.kind, finding.severity) for finding in result.findings] == [("category_project", "note")] * 2
    assert result.source.counts["train"] == {"cat": 2, "dog": 2}


def test_pose_labels(yolo):
    lines = "\n".join(f"0 0.5 0.5 0.4 0.4 0.5 0.5 2 0.4 0.4 1 0.6 0.6 0 0.{k} 0.5 2" for k in range(4, 6))
    for path in (yolo / "labels").rglob("*.txt"):
        path.write_text(lines, "utf-8")
    findings = run("yolo_folder", yolo).findings
    assert ("annotation_invalid", "train") in [(finding.kind, finding.path) for finding in findings]
    assert any("such as kpt_shape: [17, 3]" in finding.sentence for finding in findings)
    (yolo / "data.yaml").write_text("names: [cat, dog]\nkpt_shape: [4, 3]", "utf-8")
    assert found("yolo_folder", yolo) == {"empty_class": 2}
    (yolo / "data.yaml").write_text("names: [cat, dog]\nkpt_shape: [5, 3]", "utf-8")
    assert found("yolo_folder", yolo) == {"annotation_invalid": 6, "empty_class": 2}


def test_objects_that_no_grid_cell_can_hold_are_counted(tmp_path):
    """Photos of 2,000 pixels become 100: an object of 160 pixels fills a cell of 8, and smaller ones don't."""
    root = tmp_path / "yolo"
    picture(root / "images" / "train" / "a.jpg", 0, (2000, 1000))
    (root / "data.yaml").parent.mkdir(exist_ok=True)
    (root / "data.yaml").write_text("names: [cat]", "utf-8")
    sides = [96, 120, *[200] * 18]
    lines = "\n".join(f"0 0.5 0.5 {side / 2000} {side / 1000}" for side in sides)
    (root / "labels" / "train").mkdir(parents=True)
    (root / "labels" / "train" / "a.txt").write_text(lines, "utf-8")
    boxes = [{"id": k, "image_id": 1, "category_id": 1, "bbox": [500, 400, s, s]} for k, s in enumerate(sides)]
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 2000, "height": 1000}],
        "annotations": boxes,
        "categories": [{"id": 1, "name": "cat"}],
    }
    picture(tmp_path / "coco" / "train" / "a.jpg", 0, (2000, 1000))
    (tmp_path / "coco" / "annotations").mkdir()
    (tmp_path / "coco" / "annotations" / "train.json").write_text(json.dumps(content), "utf-8")
    for name, first in (("yolo", "labels/train/a.txt, line 1"), ("coco", "annotation 0 of train/a.jpg")):
        cfg = configuration(f"{name}_folder", tmp_path / name)
        cfg.data.image_size = 100
        (finding,) = check(cfg, 1).findings
        assert (finding.kind, finding.severity, finding.path) == ("objects_small", "warning", "train")
        assert finding.sentence.removeprefix("annotations/train.json: ") == (
            "2 of 20 objects (10.0%) are smaller than a grid cell of 8 x 8 pixels at data.image_size=100, the smallest "
            f"being {first}; data.image_size=160 would leave 5%."
        )
        cfg.data.image_size = 160
        (finding,) = check(cfg, 1).findings
        assert (finding.kind, finding.sentence.count("1 of 20 objects (5.0%)")) == ("objects_small", 1)
        cfg.data.image_size = 192
        assert check(cfg, 1).findings == []


def test_objects_without_an_outline_are_counted_and_are_faults_where_the_task_needs_it(coco):
    change(coco, "annotations", 2, segmentation=None)
    (finding,) = run("coco_folder", coco).findings
    assert (finding.kind, finding.severity) == ("outline_missing", "warning")
    assert "1 of 4 objects has no outline, such as annotation 12 of train/0.jpg" in finding.sentence
    for task in ("segmentation", "instance_segmentation"):
        (finding,) = run("coco_folder", coco, task).findings
        assert (finding.kind, finding.severity) == ("outline_needed", "error")
        assert f"task={task} needs one for every object" in finding.sentence
    for split in ("train", "val"):
        (coco / "class_maps" / split).mkdir(parents=True)
        for stem in ("0", "1"):
            Image.fromarray(np.eye(48, 64, dtype=np.uint8)).save(coco / "class_maps" / split / f"{stem}.png")
    assert found("coco_folder", coco, "segmentation") == {"outline_missing": 1}, "pixels have class maps"
    assert found("coco_folder", coco, "instance_segmentation") == {"outline_needed": 1}


def test_yolo_boxes_are_no_outlines(yolo):
    assert found("yolo_folder", yolo, "segmentation") == {"outline_needed": 2}  # train and val
    for path in (yolo / "labels").rglob("*.txt"):
        path.write_text(re.sub(r"(?m)^(\d).*", r"\1 0.1 0.1 0.9 0.1 0.5 0.9", path.read_text("utf-8")), "utf-8")
    assert found("yolo_folder", yolo, "segmentation") == {}
    (yolo / "labels" / "train" / "a.txt").write_text("0 0.5 0.5 0.4 0.4\n1 0.1 0.1 0.9 0.1 0.5 0.9\n", "utf-8")
    (finding,) = run("yolo_folder", yolo).findings
    assert (finding.kind, finding.path) == ("outline_missing", "train")
    assert finding.sentence.startswith("1 of 4 objects has no outline, such as labels/train/a.txt, line 1, so")


def grouped(tmp_path: Path) -> DictConfig:
    """YOLO images of three groups, named by their first letter; only those of c show a dog."""
    for number, name in enumerate(f"{group}{copy}" for group in "abc" for copy in range(3)):
        picture(tmp_path / "images" / "train" / f"{name}.jpg", number)
        label = tmp_path / "labels" / "train" / f"{name}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text(f"{int(name[0] == 'c')} 0.5 0.5 0.4 0.4\n", "utf-8")
    (tmp_path / "data.yaml").write_text("names: [cat, dog]", "utf-8")
    cfg = configuration("yolo_folder", tmp_path)
    cut = {"val_fraction": 0.3, "test_fraction": 0.3, "fold": None, "folds": None}
    return OmegaConf.merge(cfg, {"data": {**cut, "group_pattern": "train/[a-z]"}})


def test_groups_are_counted_in_the_splits_that_training_cuts(tmp_path):
    result = check(grouped(tmp_path), 2)
    counts = result.source.counts
    assert list(counts) == ["train", "val", "test"]
    assert sum(counts.values(), Counter()) == {"cat": 6, "dog": 3}
    assert sorted(part["dog"] for part in counts.values()) == [0, 0, 3], "the group c is in one split"
    assert Counter(finding.kind for finding in result.findings)["empty_class"] == 3  # a dog in two, a cat in one


def test_a_pattern_that_finds_no_group_is_an_error(tmp_path):
    cfg = OmegaConf.merge(grouped(tmp_path), {"data": {"group_pattern": "patient"}})
    (finding,) = check(cfg, 2).findings
    assert (finding.kind, finding.severity) == ("structure", "error")
    assert "finds nothing in" in finding.sentence


def test_yolo_classes_of_one_name(yolo):
    (yolo / "data.yaml").write_text("names: [cat, cat]", "utf-8")
    assert found("yolo_folder", yolo) == {"class_twice": 1}


def test_an_image_that_exif_turns_does_not_fit_annotations_of_the_stored_one(coco):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = coco / "train" / "0.jpg"
    Image.open(path).save(path, exif=exif)
    assert found("coco_folder", coco) == {"rotated": 1, "size_mismatch": 1}


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"images": 1}', "[" * 100_000, '{"images": [' + "9" * 5_000 + "]}", "\x00\xff"]
)
def test_coco_files_that_are_no_annotations(coco, content):
    (coco / "annotations" / "train.json").write_text(content, "utf-8")
    assert "annotation_unreadable" in found("coco_folder", coco)


def test_an_image_in_the_files_of_two_splits_leaks(tmp_path):
    for number in range(2):
        picture(tmp_path / "images" / f"{number}.jpg", number)
    (tmp_path / "annotations").mkdir()
    for split, numbers in (("train", (0, 1)), ("val", (1,))):
        content = {
            "images": [{"id": i, "file_name": f"{i}.jpg", "width": 64, "height": 48} for i in numbers],
            "annotations": [{"id": i, "image_id": i, "category_id": 1, "bbox": [1, 1, 5, 5]} for i in numbers],
            "categories": [{"id": 1, "name": "cat"}],
        }
        (tmp_path / "annotations" / f"{split}.json").write_text(json.dumps(content), "utf-8")
    (finding,) = run("coco_folder", tmp_path).findings
    assert (finding.kind, finding.path) == ("leak", "images/1.jpg")


LINES = st.lists(
    st.one_of(st.text(max_size=30), st.lists(st.floats(), max_size=9).map(lambda v: " ".join(map(str, v))))
)
LEAF = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5))
VALUE = st.recursive(
    LEAF, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner), max_leaves=8
)


@settings(max_examples=150, deadline=None)
@given(lines=LINES, cut=st.integers(0, 200))
def test_no_label_file_makes_it_fail(tmp_path_factory, lines, cut):
    root = tmp_path_factory.getbasetemp() / "fuzz_yolo"
    if not root.exists():
        for split in ("train", "val"):
            picture(root / "images" / split / "a.png", 1)
            (root / "labels" / split).mkdir(parents=True)
        (root / "data.yaml").write_text("names: [a, b]", "utf-8")
    (root / "labels" / "train" / "a.txt").write_bytes("\n".join(lines).encode("utf-8", "surrogatepass")[cut:])
    run("yolo_folder", root)


@settings(max_examples=250, deadline=None)
@given(
    section=st.sampled_from(["images", "annotations", "categories"]),
    key=st.sampled_from(["id", "file_name", "width", "image_id", "category_id", "bbox", "segmentation", "name"]),
    value=VALUE,
    whole=st.booleans(),
    cut=st.floats(0, 1),
    flip=st.booleans(),
)
def test_no_annotation_file_makes_it_fail(tmp_path_factory, section, key, value, whole, cut, flip):
    root = tmp_path_factory.getbasetemp() / "fuzz_coco"
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 64, "height": 48}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "segmentation": [[1, 1]]}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    if not root.exists():
        picture(root / "train" / "a.png", 1)
        (root / "annotations").mkdir()
    if whole:
        content[section] = value
    else:
        content[section][0][key] = value
    encoded = bytearray(json.dumps(content).encode())
    if flip:
        encoded[int(cut * (len(encoded) - 1))] ^= 4
    (root / "annotations" / "train.json").write_bytes(encoded)
    run("coco_folder", root)

"""Pascal VOC's XML files: pixels from 1, difficult objects, class names, and documents that attack the parser."""

from pathlib import Path

import pytest

from scene_files import image
from src.kit.errors import UserError
from src.kit.scenes.convert import find_voc_splits, read_voc

BOX = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>20</xmax><ymax>5.5</ymax></bndbox>"
CAT = f"<object><name>cat</name>{BOX}</object>"
SIZE = "<size><width>20</width><height>10</height><depth>3</depth></size>"


def write_voc(root: Path, files: dict[str, str], listed: str | None = None) -> Path:
    for name, content in files.items():
        image(root / "JPEGImages" / f"{name}.png")
        (root / "Annotations").mkdir(exist_ok=True)
        (root / "Annotations" / f"{name}.xml").write_text(content, "utf-8")
    path = root / "ImageSets" / "Main" / "train.txt"
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(files) + "\n" if listed is None else listed, "utf-8")
    return root


def read(root: Path):
    return read_voc(root, find_voc_splits(root)["train"])


def test_boxes_count_from_one_and_include_the_last_pixel(tmp_path):
    dog = f"<object><name> dog </name><difficult>1</difficult><part><name>x</name></part>{BOX}</object>"
    root = write_voc(tmp_path, {"a": f"<annotation>{SIZE}{dog}{CAT}</annotation>"})
    scenes = read(root)
    sample = scenes.read(0)
    assert sample.boxes.tolist() == [[0, 1, 20, 5.5]] * 2
    assert (scenes.classes, sample.labels.tolist(), sample.crowd.tolist()) == (("cat", "dog"), [1, 0], [True, False])
    assert (sample.image_id, sample.masks) == ("a", None)


def test_boxes_outside_are_clipped_or_dropped_and_images_may_have_none(tmp_path):
    beyond, outside = CAT.replace(">20<", ">35<"), CAT.replace(">1<", ">30<").replace(">20<", ">35<")
    files = {"a": f"<annotation>{SIZE}{beyond}{outside}</annotation>", "b": f"<annotation>{SIZE}</annotation>"}
    files["c"] = f"<annotation>{SIZE}{outside}</annotation>"
    scenes = read(write_voc(tmp_path, files))
    assert [scenes.read(index).boxes.tolist() for index in range(3)] == [[[0, 1, 20, 5.5]], [], []]


def test_lists_may_have_flags_and_names_spaces(tmp_path):
    files = dict.fromkeys(("a", "b c", "d"), f"<annotation>{SIZE}{CAT}</annotation>")
    scenes = read(write_voc(tmp_path, files, "a  1\nb c\n\n"))
    assert [scenes.path(index).stem for index in range(len(scenes))] == ["a", "b c"]


def test_classes_are_those_of_all_splits_unless_they_are_listed(tmp_path):
    files = {
        "a": f"<annotation>{SIZE}{CAT}</annotation>",
        "b": f"<annotation>{SIZE}{CAT.replace('cat', 'ant')}</annotation>",
    }
    root = write_voc(tmp_path, files, "a\n")
    assert read(root).classes == ("ant", "cat")
    (root / "classes.txt").write_text("dog\ncat\n")
    assert (read(root).classes, read(root).labels(0).tolist()) == (("dog", "cat"), [1])
    (root / "classes.txt").write_text("dog\n")
    with pytest.raises(UserError, match=r"a\.xml: Unknown class 'cat'"):
        read(root)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "cannot be read as XML"),
        (f"<annotation>{CAT}", "cannot be read as XML"),
        (f"<annotation>{CAT}</annotation>", "a <annotation> without <size><width>"),
        (f"<annotation>{SIZE.replace('20', '0')}{CAT}</annotation>", "gives its image 0 x 10 pixels"),
        (f"<annotation>{SIZE}<object>{BOX}</object></annotation>", "a <object> without <name>"),
        (f"<annotation>{SIZE}<object><name>a</name></object></annotation>", "a <object> without <bndbox><xmin>"),
        (f"<annotation>{SIZE}{CAT.replace('20', 'x')}</annotation>", "<bndbox><xmax> is 'x', which is no number"),
        (f"<annotation>{SIZE}{CAT.replace('20', 'nan')}</annotation>", "<bndbox><xmax> is 'nan', which is no number"),
        (f'<!DOCTYPE a [<!ENTITY b "b">]><annotation>{SIZE}{CAT}&b;</annotation>', "type declaration is not allowed"),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>', "type declaration is not allowed"),
    ],
)
def test_a_bad_file_is_named(tmp_path, content, message):
    root = write_voc(tmp_path, {"a": content})
    with pytest.raises(UserError, match=rf"a\.xml.*{message}"):
        read(root)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"holds no VOC data set: .*train\.txt does not exist"):
        find_voc_splits(tmp_path)
    root = write_voc(tmp_path, {"a": f"<annotation>{SIZE}{CAT}</annotation>"}, "a\nb\n")
    with pytest.raises(UserError, match=r"lists 'b', but .*JPEGImages has no image of that name"):
        read(root)
    image(root / "JPEGImages" / "b.png")
    with pytest.raises(UserError, match=r"b\.xml does not exist"):
        read(root)

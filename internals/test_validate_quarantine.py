"""Bad files are moved only when asked, with their labels, and come back exactly as they were."""

import json
import os
import shutil
from pathlib import Path

import pytest

from checked_data import class_folders, coco_folder, picture, run, yolo_folder
from src.kit.checks import checking as module
from src.kit.checks.checking import quarantine, restore
from src.kit.errors import UserError


def tree(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def spoil(name: str, root: Path) -> Path:
    """Make a data set with errors of several kinds."""
    if name == "image_folder":
        class_folders(root)
        (root / "train/cat/0.jpg").write_bytes(b"garbage")
        (root / "train/dog/bad.png").write_bytes(b"")
        shutil.copy(root / "val/dog/1.jpg", root / "train/dog/leak.jpg")
    elif name == "yolo_folder":
        yolo_folder(root)
        picture(root / "images/train/d.jpg", 7)
        shutil.copy(root / "labels/train/a.txt", root / "labels/train/d.txt")
        (root / "images/train/b.jpg").write_bytes(b"garbage")
        (root / "labels/val/c.txt").write_text("7 0.5 0.5 0.1 0.1", "utf-8")
        picture(root / "images/val/e.jpg", 8)
    else:
        coco_folder(root)
        path = root / "annotations/train.json"
        content = json.loads(path.read_text("utf-8"))
        content["annotations"][0]["bbox"] = [1, 1, 0, 0]
        content["annotations"].append({"id": 77, "image_id": 99, "category_id": 1, "bbox": [1, 1, 2, 2]})
        content["images"].append({"id": 78, "file_name": "gone.jpg", "width": 9, "height": 9})
        content["images"].append("nonsense")
        path.write_text(json.dumps(content), "utf-8")
        (root / "val/0.jpg").write_bytes(b"")
    return root


def move(name: str, root: Path) -> Path | None:
    result = run(name, root)
    return quarantine(result.source, result.findings)


@pytest.mark.parametrize("name", ["image_folder", "yolo_folder", "coco_folder"])
def test_what_is_left_has_no_errors_and_everything_comes_back(tmp_path, name):
    root = spoil(name, tmp_path)
    before = tree(root)
    assert run(name, root).count("error") > 0
    assert tree(root) == before  # a check changes nothing
    target = move(name, root)
    assert target is not None and target.parent == root / ".quarantine"
    assert run(name, root).count("error") == 0
    assert move(name, root) is None
    assert restore(root) > 0
    assert tree(root) == before
    assert not (root / ".quarantine").exists()
    assert restore(root) == 0


def test_paths_are_kept_labels_go_along_and_the_manifest_says_why(tmp_path):
    root = spoil("yolo_folder", tmp_path)
    target = move("yolo_folder", root)
    moved = {"images/train/b.jpg", "labels/train/b.txt", "images/val/c.jpg", "labels/val/c.txt"}
    assert set(tree(target)) == {*moved, "manifest.json"}
    manifest = json.loads((target / "manifest.json").read_text("utf-8"))
    assert set(manifest["moved"]) == moved
    assert manifest["reasons"]["images/val/c.jpg"] == [
        "labels/val/c.txt, line 1: the class is 7, but there are 2 classes, numbered from 0."
    ]
    assert not any((root / path).exists() for path in moved)


def test_an_annotation_file_loses_only_what_is_gone(tmp_path):
    root = spoil("coco_folder", tmp_path)
    move("coco_folder", root)
    content = json.loads((root / "annotations/train.json").read_text("utf-8"))
    assert [image["id"] for image in content["images"]] == [1]
    assert [annotation["id"] for annotation in content["annotations"]] == [11, 13]
    assert content["info"] == {"year": 2026}
    assert len(content["categories"]) == 2


def test_several_quarantines_are_undone_newest_first(tmp_path):
    root = spoil("coco_folder", tmp_path)
    before = tree(root)
    move("coco_folder", root)
    between = tree(root)
    (root / "train/1.jpg").write_bytes(b"")
    move("coco_folder", root)
    assert len(list((root / ".quarantine").iterdir())) == 2
    restore(root)
    after = tree(root)
    assert after.pop("train/1.jpg") == b""
    before.pop("train/1.jpg")
    assert after == before
    assert before != between


def test_restore_overwrites_nothing(tmp_path):
    root = spoil("image_folder", tmp_path)
    target = move("image_folder", root)
    picture(root / "train/cat/0.jpg", 3)
    before = tree(root)
    with pytest.raises(UserError, match=r"0\.jpg is in the way"):
        restore(root)
    assert tree(root) == before
    (root / "train/cat/0.jpg").unlink()
    (target / "train/dog/bad.png").unlink()
    before = tree(root)
    with pytest.raises(UserError, match=r"bad\.png is gone"):
        restore(root)
    assert tree(root) == before


def test_restore_keeps_an_annotation_file_that_has_been_edited(tmp_path):
    root = spoil("coco_folder", tmp_path)
    move("coco_folder", root)
    (root / "annotations/train.json").write_text("{}", "utf-8")
    with pytest.raises(UserError, match=r"train\.json is in the way"):
        restore(root)


@pytest.mark.parametrize("name", ["image_folder", "yolo_folder", "coco_folder"])
@pytest.mark.parametrize("steps", range(5))
def test_moving_is_all_or_nothing(tmp_path, monkeypatch, name, steps):
    """A disk that fails after so many moves, then while it is restored."""
    root = spoil(name, tmp_path)
    before = tree(root)
    result = run(name, root)
    budget = [steps]
    real = os.replace

    def failing(source: object, target: object) -> None:
        if Path(str(target)).name != "manifest.json":
            if budget[0] == 0:
                budget[0] = -1
                raise OSError(5, "Input/output error", str(source))
            budget[0] -= 1
        real(source, target)

    monkeypatch.setattr(module.os, "replace", failing)
    try:
        quarantine(result.source, result.findings)
    except UserError as error:
        assert "Nothing was moved" in str(error)
        assert tree(root) == before
    monkeypatch.setattr(module.os, "replace", real)
    if not (root / ".quarantine").exists():
        result = run(name, root)
        quarantine(result.source, result.findings)
    moved = tree(root)
    budget[0] = steps
    monkeypatch.setattr(module.os, "replace", failing)
    try:
        restore(root)
        assert tree(root) == before
    except UserError as error:
        assert "Nothing was put back" in str(error)
        assert tree(root) == moved
    monkeypatch.setattr(module.os, "replace", real)
    restore(root)
    assert tree(root) == before


def test_a_move_that_was_killed_can_be_undone(tmp_path, monkeypatch):
    root = spoil("image_folder", tmp_path)
    before = tree(root)
    result = run("image_folder", root)

    def killed(source: Path, target: Path) -> None:
        if target.name != "0.jpg":
            raise KeyboardInterrupt
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(source, target)

    monkeypatch.setattr(module, "move", killed)
    with pytest.raises(KeyboardInterrupt):
        quarantine(result.source, result.findings)
    monkeypatch.undo()
    assert tree(root) != before
    assert restore(root) == 1
    assert tree(root) == before


@pytest.mark.parametrize(
    "manifest",
    [
        '{"moved": ["../out.txt"], "rewritten": {}}',
        '{"moved": ["/out.txt"], "rewritten": {}}',
        '{"moved": [], "rewritten": {"../../../out.txt": "0"}}',
        '{"moved": ["link/out.txt"], "rewritten": {}}',
        '{"moved": [1], "rewritten": {}}',
        "{",
        "[]",
        "1",
    ],
)
def test_a_manifest_that_was_forged_moves_nothing(tmp_path, manifest):
    folder = tmp_path / "data" / ".quarantine" / "20260101-120000"
    folder.mkdir(parents=True)
    for place in (folder.parent, tmp_path):
        (place / "out.txt").write_text("from the data set")
    (tmp_path / "out.txt.new").write_text("of the user")
    (folder / "link").symlink_to(tmp_path)
    (folder / "manifest.json").write_text(manifest)
    before = tree(tmp_path)
    with pytest.raises(UserError, match="damaged"):
        restore(tmp_path / "data")
    assert tree(tmp_path) == before


def test_no_file_is_moved_through_a_link_out_of_the_data_set(tmp_path):
    root = spoil("image_folder", tmp_path / "data")
    shutil.move(root / "train" / "dog", tmp_path / "dogs")
    (root / "train" / "dog").symlink_to(tmp_path / "dogs")
    before = tree(tmp_path)
    with pytest.raises(UserError, match=r"dog is a link, or in one, to .*dogs, outside of the data set, where no file"):
        move("image_folder", root)
    assert tree(tmp_path) == before
    (root / "train" / "dog").unlink()
    shutil.move(tmp_path / "dogs", root / "dogs")
    (root / "train" / "dog").symlink_to(root / "dogs")  # within the data set
    assert move("image_folder", root)
    shutil.move(root / "dogs", tmp_path / "dogs")
    (root / "train" / "dog").unlink()
    (root / "train" / "dog").symlink_to(tmp_path / "dogs")  # as the link of a data set from elsewhere may
    before = tree(tmp_path)
    with pytest.raises(UserError, match="outside of the data set"):
        restore(root)
    assert tree(tmp_path) == before

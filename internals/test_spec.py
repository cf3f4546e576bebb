"""The table of data sets: complete, the only place of URLs and checksums, and fetched as it says."""

import hashlib
import os
import re
import tarfile
import zipfile
from pathlib import Path

import pytest

import src.kit.catalog.specs as specs_module
from src.datasets.scenes import digit_scenes
from src.kit.catalog.specs import DatasetSpec, PublishedFile, dataset_specs, fetch_dataset, find_spec, parse_spec
from src.kit.config.compose import CONFIGS, help_text, option_names
from src.kit.errors import UserError

SOURCE = Path(specs_module.__file__).parents[1]
COMPOSED = {"mixture", "shards"}  # made of other data sets


def md5(path: Path) -> str:
    return "md5:" + hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


@pytest.fixture
def publisher(tmp_path, monkeypatch) -> Path:
    """The folder that stands for every publisher's server."""
    folder = tmp_path / "publisher"
    folder.mkdir()
    monkeypatch.setenv("DATASET_MIRROR", str(folder))
    return folder


def test_every_data_set_is_described_once():
    assert set(option_names("data")) - COMPOSED <= set(dataset_specs()) <= set(option_names("data"))
    assert all(each.classes for each in dataset_specs().values() if each.access != "own" and each.name != "housing")


def test_digit_scenes_are_as_many_as_they_are_said_to_be():
    assert dict(find_spec("digit_scenes").splits) == digit_scenes.SCENES


def test_the_debug_twin_is_smaller_and_for_the_same_task():
    twins = [(each, dataset_specs()[each.debug_twin]) for each in dataset_specs().values() if each.debug_twin]
    assert {each.name for each, _ in twins} >= {"mnist", "cifar10", "imagenet", "coco2017"}
    for each, twin in twins:
        assert twin.bytes < each.bytes
        assert set(twin.tasks) & set(each.tasks)


def test_sizes_agree_with_those_of_the_files():
    for each in dataset_specs().values():
        known = sum(file.bytes or 0 for file in each.files)
        assert known <= each.bytes
        assert sum(file.unpacked or 0 for file in each.files) <= 1.01 * each.unpacked or each.name == "coco128"


def test_coco128_has_a_photo_for_each_label_file():
    targets = {file.target.removeprefix("./") for file in find_spec("coco128").files}
    photos = {name for name in targets if name.startswith("images/")}
    assert len(photos) == 256
    unlabelled = {f"labels{name[6:-4]}.txt" for name in photos} - targets
    assert unlabelled == {
        f"labels/train2017/000000000{number}.txt" for number in (250, 508)
    }  # show none of the classes
    assert len(targets) == 256 + 254


@pytest.mark.parametrize("folder", ["datasets", "tasks", "trainers"])
def test_urls_and_checksums_stand_nowhere_else(folder):
    for path in (SOURCE / folder).rglob("*.py"):
        text = path.read_text("utf-8")
        assert not re.search(r"[0-9a-f]{32}|https?://\S+\.(zip|gz|tar)\b", text), path


def test_the_tables_are_no_data_sets():
    assert {path.stem for path in (CONFIGS / "data").rglob("*.yaml")} - set(option_names("data")) == {
        "default",
        "dataset_spec",
        "debug_datasets",
        "production_datasets",
    }
    assert "dataset_spec" not in help_text()


def test_an_unknown_data_set_is_named():
    with pytest.raises(UserError, match=r"Unknown data set 'mnits'. Did you mean mnist\?"):
        find_spec("mnits")


@pytest.mark.parametrize("checksum", ["", "md5:123", "sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709"])
def test_a_file_without_a_sound_checksum_is_refused(checksum):
    entry = {"target": "a", "urls": ["https://publisher.invalid/a"], "checksum": checksum}
    common = dict.fromkeys(("homepage", "classes", "debug_twin"))
    values = {"tasks": [], "licence": "", "access": "open", "bytes": 1, "unpacked": 1, "splits": {}, "files": [entry]}
    with pytest.raises(AssertionError):
        parse_spec("one", common | values)


def one_archive(publisher: Path, monkeypatch: pytest.MonkeyPatch, unpacked: int) -> DatasetSpec:
    """A data set of one archive with a folder `photos` in it, which replaces the whole table."""
    source = publisher.parent / "source" / "photos"
    source.mkdir(parents=True)
    for name in ("a.bin", "b.bin"):
        (source / name).write_bytes(bytes(1000))
    with tarfile.open(publisher / "photos.tar.gz", "w:gz") as packed:
        packed.add(source, "photos")
    file = PublishedFile(
        ("https://publisher.invalid/photos.tar.gz",),
        "photos",
        md5(publisher / "photos.tar.gz"),
        None,
        unpacked,
        {"a.bin": 1000},
    )
    made = DatasetSpec("one", ("classification",), None, "", "open", 1, 1, 2, {}, None, (file,))
    monkeypatch.setattr(specs_module, "dataset_specs", lambda: {"one": made})
    return made


def test_an_archive_is_fetched_unpacked_and_mended(publisher, tmp_path, monkeypatch, capsys):
    made = one_archive(publisher, monkeypatch, unpacked=2000)
    root = tmp_path / "root"
    assert not made.is_complete(root)
    assert fetch_dataset("one", root) == root
    assert made.is_complete(root)
    assert [path.relative_to(root).as_posix() for path in sorted(root.rglob("*.*"))] == ["photos/a.bin", "photos/b.bin"]
    (publisher / "photos.tar.gz").rename(publisher / "gone")
    fetch_dataset("one", root)  # nothing is fetched
    assert "photos is already there" in capsys.readouterr().out
    (root / "photos" / "a.bin").write_bytes(b"cut")
    (publisher / "gone").rename(publisher / "photos.tar.gz")
    fetch_dataset("one", root)
    assert made.is_complete(root)


def test_an_archive_that_unpacks_to_more_than_announced_leaves_nothing(publisher, tmp_path, monkeypatch):
    one_archive(publisher, monkeypatch, unpacked=1999)
    with pytest.raises(UserError, match="expands beyond its limit"):
        fetch_dataset("one", tmp_path / "root")
    assert not (tmp_path / "root" / "photos").exists()


def test_coco128_is_fetched_file_by_file(publisher, tmp_path):
    folder = os.environ.get("TEST_DATA_DIR")
    archives = [Path(folder or ".", f"coco128-{kind}.zip") for kind in ("images", "detection")]
    if not folder or not all(path.is_file() for path in archives):
        pytest.skip("TEST_DATA_DIR names no folder with COCO128's photos and boxes")
    for path in archives:
        with zipfile.ZipFile(path) as packed:
            for name in packed.namelist():
                (publisher / Path(name).name).write_bytes(packed.read(name))
    fetch_dataset("coco128", tmp_path / "root")
    assert find_spec("coco128").is_complete(tmp_path / "root")
    assert len(list((tmp_path / "root" / "labels" / "val2017").glob("*.txt"))) == 128
    assert (
        sum(path.stat().st_size for path in (tmp_path / "root").rglob("*.*") if path.is_file())
        == find_spec("coco128").bytes
    )

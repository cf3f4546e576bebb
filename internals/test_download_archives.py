"""Unpacking: what is written, and every archive that must be refused."""

import gzip
import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from src.kit.download import files
from src.kit.download.files import extract, gunzip
from src.kit.errors import UserError


def tar(path: Path, *members: tuple[str, bytes], **special: bytes) -> Path:
    """A .tar.gz of files; `special` are members of another type, by name."""
    with tarfile.open(path, "w:gz") as packed:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            packed.addfile(info, io.BytesIO(content))
        for name, kind in special.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            packed.addfile(info)
    return path


def zipped(path: Path, *members: tuple[str, bytes], mode: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            packed.writestr(info, content, zipfile.ZIP_DEFLATED)
    return path


@pytest.mark.parametrize(("pack", "name"), [(tar, "a.tar.gz"), (zipped, "a.zip")])
def test_files_are_unpacked_into_the_target(tmp_path, pack, name):
    archive = pack(tmp_path / name, ("one.txt", b"1"), ("deep/two.txt", b"22"))
    target = extract(archive, tmp_path / "out", max_bytes=3)
    assert (target / "one.txt").read_bytes() == b"1"
    assert (target / "deep" / "two.txt").read_bytes() == b"22"
    assert {path.name for path in tmp_path.iterdir()} == {name, "out"}


def test_a_top_folder_of_the_targets_name_becomes_the_target_and_replaces_it(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "old.txt").write_text("old")
    extract(tar(tmp_path / "a.tar.gz", ("set/new.txt", b"new")), tmp_path / "set", max_bytes=10)
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["new.txt"]


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", "C:evil", "..\\evil", "\\evil"])
@pytest.mark.parametrize("pack", [tar, zipped])
def test_paths_that_leave_the_folder_are_refused(tmp_path, pack, name):
    (tmp_path / "in").mkdir()
    archive = pack(tmp_path / "in" / "archive", ("good", b"1"), (name, b"2"))
    with pytest.raises(UserError, match="points outside the folder"):
        extract(archive, tmp_path / "in" / "out", max_bytes=100)
    assert [path.name for path in tmp_path.rglob("*")] == ["in", "archive"]


@pytest.mark.parametrize("name", ["d/" * 2000 + "x", "d/" * 100 + "x", "x" * 300, "x" * 60_000, "é" * 200])
@pytest.mark.parametrize("pack", [tar, zipped])
def test_paths_that_no_file_system_takes_are_refused(tmp_path, pack, name):
    archive = pack(tmp_path / "archive", ("good", b"1"), (name, b"2"))
    with pytest.raises(UserError, match=r"'\.\.\. is too deep or too long a path: get it from its publisher"):
        extract(archive, tmp_path / "out", max_bytes=100)
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


def test_nested_and_endless_metadata_is_refused(tmp_path):
    for number, (count, size) in enumerate(((3000, 100), (1, 300 << 20))):
        archive = tmp_path / f"{number}.tar.gz"
        with gzip.open(archive, "wb", compresslevel=1) as packed:
            packed.write(tar_header("good", 1) + b"1".ljust(512, b"\0"))
            for _ in range(count):
                packed.write(tar_header("././@LongLink", size, tarfile.GNUTYPE_LONGNAME))
                for _ in range(-(-size // (1 << 20))):
                    packed.write(b"a" * min(size, 1 << 20) + bytes(-size % 512))
            packed.write(tar_header("x", 0) + bytes(1024))
        with pytest.raises(UserError, match=f"{number}.tar.gz is damaged"):
            extract(archive, tmp_path / "out", max_bytes=100)


def tar_header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(tmp_path, kind):
    archive = tar(tmp_path / "a.tar.gz", ("good", b"1"), link=kind)
    with pytest.raises(UserError, match="'link' is a link or a device"):
        extract(archive, tmp_path / "out", max_bytes=100)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar.gz"]


def test_a_link_in_a_zip_is_refused(tmp_path):
    archive = zipped(tmp_path / "a.zip", ("link", b"/etc/passwd"), mode=stat.S_IFLNK | 0o777)
    with pytest.raises(UserError, match="'link' is a link or a device"):
        extract(archive, tmp_path / "out", max_bytes=100)


@pytest.mark.parametrize("pack", [tar, zipped])
def test_expansion_beyond_the_limit_is_refused_and_the_old_folder_stays(tmp_path, pack):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old.txt").write_text("old")
    archive = pack(tmp_path / "archive", ("a", bytes(4_000_000)), ("b", bytes(4_000_000)))
    with pytest.raises(UserError, match="expands beyond its limit at 'b'"):
        extract(archive, tmp_path / "out", max_bytes=7_000_000)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["archive", "old.txt", "out"]


def test_a_folder_that_cannot_be_replaced_stays(tmp_path, monkeypatch):
    """Virus scanners hold new files open on Windows for a moment, which then cannot be renamed."""
    archive, target = tar(tmp_path / "a.tar.gz", ("new.txt", b"new")), tmp_path / "out"
    target.mkdir()
    (target / "old.txt").write_text("old")
    real = os.replace

    def replace(source: Path, goal: Path) -> None:
        if source.name.endswith(".new"):
            raise PermissionError(13, "Permission denied", str(source))
        real(source, goal)

    monkeypatch.setattr(files.os, "replace", replace)
    with pytest.raises(PermissionError):
        extract(archive, target, max_bytes=100)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.tar.gz", "old.txt", "out"]


def test_damaged_archives_are_named(tmp_path):
    archive = tar(tmp_path / "a.tar.gz", ("a", bytes(range(256)) * 4000))
    whole = archive.read_bytes()
    for content in (b"no archive", whole[: len(whole) // 2]):
        archive.write_bytes(content)
        with pytest.raises(UserError, match=r"a.tar.gz is damaged"):
            extract(archive, tmp_path / "out", max_bytes=10**7)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar.gz"]


def test_gunzip_stops_at_its_limit(tmp_path):
    packed = tmp_path / "a.gz"
    packed.write_bytes(gzip.compress(bytes(100)))
    gunzip(packed, tmp_path / "a", max_bytes=100)
    assert (tmp_path / "a").read_bytes() == bytes(100)
    with pytest.raises(UserError, match="expands beyond its limit"):
        gunzip(packed, tmp_path / "b", max_bytes=99)

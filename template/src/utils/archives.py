"""Unpack downloaded archives: nothing outside the target, no links, no more bytes than announced, all or nothing."""

import gzip
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from src.utils.errors import UserError

CHUNK = 1 << 20
DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error, tarfile.TarError, zipfile.BadZipFile)


def extract(archive: Path, target: Path, max_bytes: int) -> Path:
    """Unpack a tar (plain, gz, bz2, xz) or zip into the folder `target`, which is replaced where it exists.

    An archive whose one top entry is a folder named like `target` becomes that folder. The files are written to a
    temporary folder beside `target`, which is renamed at the end.

    Raises:
        UserError: a damaged archive, a link or device, an absolute path or `..`, or more than `max_bytes` unpacked.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        new = work / "new"
        new.mkdir()
        left = max_bytes
        for name, source in members(archive):
            path = new / safe(name, archive)
            path.parent.mkdir(parents=True, exist_ok=True)
            left -= copy(source, path, left, archive)
        if [child.name for child in new.iterdir()] == [target.name] and (new / target.name).is_dir():
            new = new / target.name
        if target.exists():
            os.replace(target, work / "old")
        os.replace(new, target)
    except DAMAGE as error:
        raise UserError(f"{archive} is damaged ({error}): delete it and download it again.") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Name and open content of every regular file; folders are left out, everything else is refused."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            for entry in packed.infolist():
                kind = stat.S_IFMT(entry.external_attr >> 16)
                if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise refusal(archive, f"{entry.filename!r} is a link or a device")
                if not entry.is_dir():
                    with packed.open(entry) as source:
                        yield entry.filename, source
        return
    with tarfile.open(archive, "r:*") as tar:
        for member in tar:
            if not (member.isreg() or member.isdir()):
                raise refusal(archive, f"{member.name!r} is a link or a device")
            if member.isreg():
                content = tar.extractfile(member)
                assert content is not None, member.name
                yield member.name, content


def safe(name: str, archive: Path) -> PurePosixPath:
    """The member's relative path; refuses names that could leave the folder: `..`, `/x`, `C:x`, backslashes."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or any(mark in name for mark in "\\:\0"):
        raise refusal(archive, f"{name!r} points outside the folder")
    return path


def copy(source: IO[bytes] | gzip.GzipFile, path: Path, max_bytes: int, archive: Path) -> int:
    """Write at most `max_bytes` of `source` to `path`; returns how many there were."""
    written = 0
    with path.open("wb") as file:
        while chunk := source.read(CHUNK):
            written += len(chunk)
            if written > max_bytes:
                raise refusal(archive, f"it expands beyond its limit at {path.name!r}")
            file.write(chunk)
    return written


def gunzip(packed: Path, path: Path, max_bytes: int) -> None:
    """Unpack one gzip file to `path`.

    Raises:
        UserError: more than `max_bytes` unpacked.
        one of `DAMAGE`: the file is damaged.
    """
    with gzip.open(packed) as source:
        copy(source, path, max_bytes, packed)


def refusal(archive: Path, reason: str) -> UserError:
    """The error for an archive that must not be unpacked."""
    return UserError(f"{archive} was not unpacked, since {reason}: get it from its publisher.")

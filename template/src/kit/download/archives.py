"""Unpack downloaded archives: nothing outside the target, no links, no more bytes than announced, all or nothing."""

import gzip
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from src.kit.config import UserError
from src.kit.download.cache import locked, remove, work_path

CHUNK = 1 << 20
DAMAGE = (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error, tarfile.TarError, zipfile.BadZipFile)


def extract(archive: Path, target: Path, max_bytes: int) -> Path:
    """Unpack a tar (plain, gz, bz2, xz) or zip into the folder `target`, which is replaced where it exists.

    An archive whose one top entry is a folder named like `target` becomes that folder. The files are written to a
    temporary folder on the same disk, which is renamed at the end; two processes take turns.

    Raises:
        UserError: a damaged archive, a link or device, an absolute path or `..`, or more than `max_bytes` unpacked.
    """
    with locked(target):
        new, old = work_path(target, ".new"), work_path(target, ".old")
        try:
            remove(new)
            new.mkdir()
            unpack(archive, new, max_bytes)
            inner = new / target.name
            whole = inner if [child.name for child in new.iterdir()] == [target.name] and inner.is_dir() else new
            if target.exists():
                remove(old)
                os.replace(target, old)
            os.replace(whole, target)
        finally:
            remove(new)
            remove(old)
    return target


def unpack(archive: Path, folder: Path, max_bytes: int) -> None:
    """Write every file of the archive below `folder`."""
    left = max_bytes
    try:
        for name, source in members(archive):
            path = folder / safe(name, archive)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                left -= copy(source, path, left, archive)
            except (FileExistsError, NotADirectoryError) as error:
                raise refusal(archive, f"{name!r} is in it twice, or is a file and a folder") from error
    except DAMAGE as error:
        raise UserError(f"{archive} is damaged ({error}): delete it and download it again.") from error


def members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Name and open content of every regular file; folders are left out, everything else is refused."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            for entry in packed.infolist():
                kind = stat.S_IFMT(entry.external_attr >> 16)
                if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise refusal(archive, f"{entry.filename!r} is a link or a device")
                if entry.flag_bits & 1:
                    raise refusal(archive, f"{entry.filename!r} has a password")
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
    """The member's relative path; refuses names that could leave the folder on any system: `..`, `/x`, `C:x`."""
    path = PurePosixPath(name)
    odd = any(part != part.rstrip(" .") for part in path.parts) or any(mark in name for mark in "\\:\0")
    if path.is_absolute() or not path.parts or odd:
        raise refusal(archive, f"{name!r} points outside the folder")
    return path


def copy(source: IO[bytes] | gzip.GzipFile, path: Path, max_bytes: int, archive: Path) -> int:
    """Write at most `max_bytes` of `source` to `path`, a new file; returns how many there were."""
    written = 0
    with path.open("xb") as file:
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
    path.unlink(missing_ok=True)
    with gzip.open(packed) as source:
        copy(source, path, max_bytes, packed)


def refusal(archive: Path, reason: str) -> UserError:
    """The error for an archive that must not be unpacked."""
    return UserError(f"{archive} was not unpacked, since {reason}: get it from its publisher.")

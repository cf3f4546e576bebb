"""Files on disk: the working folder `.downloads` with its locks, checksums, and unpacking of untrusted archives."""

import gzip
import hashlib
import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import IO, Any

from src.kit.config import UserError

FOLDER = ".downloads"  # next to the target, so that a rename moves a finished file into place
SUFFIXES = (".part", ".state", ".unpacked", ".new", ".old", ".lock")
POLL_S = 0.2  # seconds between two attempts to get a lock
CHUNK = 1 << 20  # bytes
HEX_DIGITS = {"md5": 32, "sha1": 40, "sha256": 64, "sha512": 128, "sha256-8": 8}  # the last one: its first digits
DAMAGE = (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error, tarfile.TarError, zipfile.BadZipFile, struct.error)
DEEPEST, LONGEST = 64, 255  # folders of a path, bytes of a name: what every file system allows
MOST_METADATA = 1 << 20  # bytes of a tar's metadata for a file, such as its long name


def cache_folder(root: Path) -> Path:
    """Return the folder for working files of downloads into `root`; archives may stay there until `clean`."""
    return root if root.name == FOLDER else root / FOLDER


def work_path(target: Path, suffix: str) -> Path:
    """Return the working file of `target` with one of `SUFFIXES`, on the same disk as the target."""
    assert suffix in SUFFIXES, suffix
    return cache_folder(target.parent) / f"{target.name}{suffix}"


@contextmanager
def locked(target: Path, wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Lock `target` against other processes and threads. The lock ends with the process, even if it is killed.

    Args:
        wait: called about five times a second while another process holds the lock; raises to give up.
    """
    from filelock import FileLock, Timeout

    path = work_path(target, ".lock")
    lock = FileLock(path)
    failures = 0
    while not lock.is_locked:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=POLL_S)
        except Timeout:
            wait()
        except (FileExistsError, FileNotFoundError):
            # Either another process is removing the empty folder right now, or the folder can't be created.
            failures += 1
            if failures > 100:
                raise
            time.sleep(0.01)
    try:
        yield
    finally:
        release(lock, path)


def release(lock: Any, path: Path) -> None:
    """Release a lock and remove its file and, if empty, the folder.

    The file goes while the lock is still held: waiting processes notice that and create a new one.
    """
    with suppress(OSError):  # Windows can't delete an open file; filelock deletes it later
        path.unlink()
    lock.release()
    with suppress(OSError):  # not empty, or another process removed it first
        path.parent.rmdir()


@contextmanager
def remove_empty_folders_on_failure(root: Path) -> Iterator[None]:
    """If the block fails, remove all empty folders below `root`, and `root` and its parents if the block made them."""
    created = [folder for folder in (root, *root.parents) if not folder.exists()]
    try:
        yield
    except BaseException:
        below = [Path(folder) for folder, _, _ in os.walk(root, topdown=False)]  # the last one is `root`
        for folder in (*below[:-1], *created):
            with suppress(OSError):  # not empty
                folder.rmdir()
        raise


def clean(root: Path) -> int:
    """Delete unfinished downloads, half-unpacked folders and kept archives below `root`; return the bytes freed.

    Data sets stay, and so do files that another process is downloading.
    """
    from filelock import FileLock, Timeout

    freed = 0
    for parent, folders, _ in os.walk(root):
        folder = Path(parent)
        if folder.name != FOLDER:
            continue
        folders.clear()
        for name in sorted({target_name(path.name) for path in folder.iterdir()}):
            path = work_path(folder / name, ".lock")
            lock = FileLock(path)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            freed += sum(remove(folder / f"{name}{suffix}") for suffix in ("", *SUFFIXES[:-1]))
            release(lock, path)
    return freed


def target_name(work_name: str) -> str:
    """Return the target's name for the name of a working file: "a.zip.part" -> "a.zip"."""
    return next((work_name.removesuffix(suffix) for suffix in SUFFIXES if work_name.endswith(suffix)), work_name)


def remove(path: Path) -> int:
    """Delete a file or folder if it exists; return its size in bytes."""
    if path.is_dir() and not path.is_symlink():
        size = sum(file.lstat().st_size for file in path.rglob("*") if not file.is_dir())
        shutil.rmtree(path)
        return size
    try:
        size = path.lstat().st_size
        path.unlink()
    except FileNotFoundError:
        return 0
    return size


def parse_checksum(checksum: str) -> str:
    """Return a checksum such as "md5:<hex>" or "sha256:<hex>" in lower case.

    Raises:
        UserError: the algorithm is missing or unknown, or the number of digits doesn't fit it.
    """
    algorithm, _, digits = checksum.lower().partition(":")
    if len(digits) != HEX_DIGITS.get(algorithm) or not re.fullmatch("[0-9a-f]+", digits):
        raise UserError(
            f"{checksum!r} is no checksum: write sha256: and 64 hexadecimal digits, or md5: and the publisher's 32."
        )
    return f"{algorithm}:{digits}"


def digest(path: Path, checksum: str, check: Callable[[], None] = lambda: None) -> str:
    """Hash a file with the algorithm of `checksum` ("md5:...", "sha256:..."); return "<algorithm>:<hex>".

    Args:
        check: called after each MiB; raises to give up.
    """
    algorithm = checksum.partition(":")[0]
    total = hashlib.new(algorithm.partition("-")[0], usedforsecurity=algorithm not in ("md5", "sha1"))
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            check()
            total.update(chunk)
    return f"{algorithm}:{total.hexdigest()[: HEX_DIGITS[algorithm]]}"


def extract(archive: Path, target: Path, max_bytes: int) -> Path:
    """Unpack a tar (plain, gz, bz2, xz) or zip into the folder `target`, replacing it if it exists.

    If the archive's only top-level entry is a folder named like `target`, that folder becomes `target`. Files go into
    a temporary folder on the same disk first, which is renamed at the end. A lock keeps other processes out.

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
            remove(old)
            if target.exists():
                os.replace(target, old)
            try:
                os.replace(whole, target)
            except OSError:
                if old.exists():
                    os.replace(old, target)
                raise
        finally:
            remove(new)
            remove(old)
    return target


def unpack(archive: Path, folder: Path, max_bytes: int) -> None:
    """Write every file of the archive below `folder`."""
    left = max_bytes
    try:
        for name, source in archive_files(archive):
            path = folder / safe_path(name, archive)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                left -= copy_limited(source, path, left, archive)
            except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
                raise refusal(archive, f"it holds {name!r} twice, or as a file and a folder") from error
    except UserError:
        raise
    except (*DAMAGE, ValueError, NotImplementedError, RecursionError) as error:
        raise UserError(f"{archive} is damaged ({error}): delete it and download it again.") from error


def archive_files(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield name and open content of every regular file; skip folders, refuse links and devices."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            for entry in packed.infolist():
                kind = stat.S_IFMT(entry.external_attr >> 16)
                if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise refusal(archive, f"{entry.filename!r} is a link or a device")
                if entry.flag_bits & 1:
                    raise refusal(archive, f"{entry.filename!r} needs a password")
                if not entry.is_dir():
                    with packed.open(entry) as source:
                        yield entry.filename, source
        return
    with tarfile.open(archive, "r:*", tarinfo=SmallTarInfo) as tar:
        for member in tar:
            if not (member.isreg() or member.isdir()):
                raise refusal(archive, f"{member.name!r} is a link or a device")
            if member.isreg():
                content = tar.extractfile(member)
                assert content is not None, member.name
                yield member.name, content


class SmallTarInfo(tarfile.TarInfo):
    """Refuse metadata that would fill the memory: tarfile reads it whole, and a kilobyte can expand to gigabytes."""

    def _proc_member(self, tar: tarfile.TarFile) -> Any:
        if not self.isreg() and not self.isdir() and self.size > MOST_METADATA:
            raise tarfile.ReadError(f"{self.size:,} bytes of metadata for one file")
        return super()._proc_member(tar)  # type: ignore[misc]


def safe_path(name: str, archive: Path) -> PurePosixPath:
    """Return a member's relative path.

    Refuses names that leave the folder on any system (`..`, `/x`, `C:x`), and those too long or too deep for one.
    """
    path = PurePosixPath(name)
    if len(path.parts) > DEEPEST or any(len(part.encode("utf-8", "replace")) > LONGEST for part in path.parts):
        raise refusal(archive, f"{name[:80]!r}... is too deep or too long a path")
    odd = any(part != part.rstrip(" .") for part in path.parts) or any(mark in name for mark in "\\:\0")
    if path.is_absolute() or not path.parts or odd:
        raise refusal(archive, f"{name!r} points outside the folder")
    return path


def copy_limited(source: IO[bytes] | gzip.GzipFile, path: Path, max_bytes: int, archive: Path) -> int:
    """Copy `source` to the new file `path`; return its bytes. Refuse more than `max_bytes`."""
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
        copy_limited(source, path, max_bytes, packed)


def refusal(archive: Path, reason: str) -> UserError:
    """Return the error for an archive that must not be unpacked."""
    return UserError(f"{archive} was not unpacked, since {reason}: get it from its publisher.")

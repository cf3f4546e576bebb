"""The folder `.downloads` beside the data: unfinished downloads, locks, kept archives; `clean` empties it."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

FOLDER = ".downloads"
SUFFIXES = (".part", ".state", ".unpacked", ".new", ".old", ".lock")
POLL_S = 0.2


def cache_folder(root: Path) -> Path:
    """Where the working files of downloads into `root` lie, and where archives may be kept until `clean`."""
    return root if root.name == FOLDER else root / FOLDER


def work_path(target: Path, suffix: str) -> Path:
    """The working file of `target` for one of `SUFFIXES`, on the same disk, so that a rename puts it in place."""
    assert suffix in SUFFIXES, suffix
    return cache_folder(target.parent) / f"{target.name}{suffix}"


@contextmanager
def locked(target: Path, wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold `target` against other processes and threads; the lock ends with the process, however it ends.

    `wait` is called about five times a second while another one holds it, and may raise to give up.
    """
    from filelock import FileLock, Timeout

    path = work_path(target, ".lock")
    lock = FileLock(path)
    missed = 0
    while not lock.is_locked:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=POLL_S)
        except Timeout:
            wait()
        except (FileExistsError, FileNotFoundError):  # another process removes the empty folder at this moment, or:
            missed += 1
            if missed > 100:  # it cannot be made
                raise
            time.sleep(0.01)
    try:
        yield
    finally:
        release(lock, path)


@contextmanager
def tidy(root: Path) -> Iterator[None]:
    """Where what is done in it fails, remove `root` and the folders above if they are new, and all empty ones below."""
    made = [folder for folder in (root, *root.parents) if not folder.exists()]
    try:
        yield
    except BaseException:
        below = [Path(folder) for folder, _, _ in os.walk(root, topdown=False)]  # the last one is `root`
        for folder in (*below[:-1], *made):
            with suppress(OSError):  # it is not empty
                folder.rmdir()
        raise


def clean(root: Path) -> int:
    """Delete unfinished downloads, half-unpacked folders and kept archives below `root`; returns the bytes freed.

    The data sets stay, and so does whatever another process is downloading at the moment.
    """
    from filelock import FileLock, Timeout

    freed = 0
    for parent, folders, _ in os.walk(root):
        folder = Path(parent)
        if folder.name != FOLDER:
            continue
        folders.clear()
        for name in sorted({base(path.name) for path in folder.iterdir()}):
            path = work_path(folder / name, ".lock")
            lock = FileLock(path)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            freed += sum(remove(folder / f"{name}{suffix}") for suffix in ("", *SUFFIXES[:-1]))
            release(lock, path)
    return freed


def release(lock: Any, path: Path) -> None:
    """Let go of a lock and tidy up: its file goes while it is held, which waiting processes notice; then the folder."""
    with suppress(OSError):  # Windows: the file is open, and filelock deletes it afterwards
        path.unlink()
    lock.release()
    with suppress(OSError):  # not empty, or another process was quicker
        path.parent.rmdir()


def base(name: str) -> str:
    """The target's name of a working file."""
    return next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name)


def remove(path: Path) -> int:
    """Delete a file or folder, if it exists; returns how many bytes it had."""
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

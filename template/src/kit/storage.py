"""Files that survive a crash: written beside their target, on the disk before they get its name, with checksums."""

import csv
import hashlib
import io
import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from src.kit.errors import UserError

__all__ = [
    "PARTIAL",
    "checksum",
    "lock_folder",
    "partial_path",
    "read_delimited",
    "read_intact",
    "read_json",
    "read_layers",
    "read_rows",
    "remove",
    "replace_file",
    "sort_paths",
    "sweep",
    "sync",
    "translate_errors",
    "write_csv",
    "write_json",
    "write_rows",
    "write_text",
]

PARTIAL = ".partial"  # how the name of a file or folder ends that is still being written; it begins with a dot
CHUNK = 1 << 20  # bytes


def sort_paths(paths: Iterable[Path]) -> list[Path]:
    """Sort paths by their parts, letter by letter: on Windows, `sorted` would not tell A from a."""
    return sorted(paths, key=lambda path: path.parts)


def partial_path(path: Path) -> Path:
    """Where this process writes the content of `path` first: beside it, on the same disk."""
    return path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")


@contextmanager
def replace_file(path: Path, wait: bool = True) -> Iterator[Path]:
    """Yield a path to write to; afterwards it replaces `path` as a whole. After an error nothing has changed.

    The file gets the mode that a new file gets here (`umask`), whatever wrote it.

    Args:
        wait: until it is on the disk; files that can be made again need not.
    """
    partial = partial_path(path)
    partial.unlink(missing_ok=True)
    try:
        partial.touch()
        mode = partial.stat().st_mode
        yield partial
        partial.chmod(mode)
        if wait:
            sync(partial)
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error  # the name that users know
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    if wait:
        sync(path.parent)


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk: a power cut may come any moment."""
    if path.is_dir() and os.name == "nt":
        return  # Windows opens no folders, and writes their names itself
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(folder: Path) -> None:
    """Delete what a killed process has left half-written in a folder and its subfolders."""
    for path in list(folder.rglob(f".*{PARTIAL}")):
        remove(path)


def remove(path: Path) -> None:
    """Delete a file or a folder, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def checksum(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def lock_folder(folder: Path) -> Iterator[int | None]:
    """Keep other processes out of a folder until the block ends, or this process does, even if it is killed.

    Yields:
        The lock's file descriptor: a child that is given it holds the lock too. None on Windows, which has no locks.

    Raises:
        UserError: another process is in it.
    """
    if sys.platform == "win32":
        yield None
        return
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise UserError(f"Another process is training in {folder}: wait until it has ended, or end it.") from error
    except OSError:
        pass  # some network file systems have no locks
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def translate_errors(path: Path, *kinds: type[Exception]) -> Iterator[None]:
    """Turn a library's own exception for a full or broken disk into the OSError that it hides.

    Libraries in C++ and Rust name it in their text ("os error 28"), or wrap Python's.
    """
    try:
        yield
    except kinds as error:
        cause: BaseException | None = error
        while cause and not isinstance(cause, OSError):
            cause = cause.__cause__ or cause.__context__
        number = cause.errno if isinstance(cause, OSError) else None
        if number is None and (found := re.search(r"os error (\d+)", str(error))):
            number = int(found[1])
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def read_delimited(path: Path) -> tuple[io.StringIO, str]:
    """The text of a CSV file, and what separates its columns: what its first line has most of.

    Commas, semicolons and tabs count, in this order; in a .tsv file tabs come first.
    """
    text = path.read_text("utf-8-sig")
    signs = "\t,;" if path.suffix.lower() == ".tsv" else ",;\t"
    return io.StringIO(text), max(signs, key=text.partition("\n")[0].count)


def write_text(path: Path, text: str, wait: bool = True) -> Path:
    """Replace a text file as a whole, and return its path; `wait` until it is on the disk."""
    with replace_file(path, wait) as partial:
        partial.write_text(text, "utf-8")
    return path


def write_json(path: Path, value: Any, wait: bool = True) -> None:
    """Replace a JSON file as a whole; `wait` until it is on the disk."""
    write_text(path, json.dumps(value, indent=2), wait)


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON file's object, or an empty one if there is no such file.

    Raises:
        UserError: it cannot be read, or is no JSON object.
    """
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = "it is empty" if not path.stat().st_size else " ".join(str(error).split())
        raise UserError(f"{path} is damaged ({reason}): delete it, or restore it from a copy.") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} is damaged (it holds no keys and values): delete it, or restore it from a copy.")
    return values


def read_intact(path: Path) -> dict[str, Any]:
    """A JSON file's object, or an empty one if it is missing or damaged."""
    try:
        return read_json(path)
    except UserError:
        return {}


def read_rows(path: Path, valid: Callable[[Any], bool] | None = None) -> list[dict[str, Any]]:
    """Return the rows of metrics.jsonl: names and numbers, the epoch among them; or those of a file of another kind.

    A last line that a crash cut short is left out; so are other damaged ones, with a warning.
    """
    rows: list[dict[str, Any]] = []
    damaged: list[int] = []
    content = path.read_bytes() if path.is_file() else b""
    for number, line in enumerate(content.split(b"\n"), 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if (valid or is_row)(row):
            rows.append(row)
        elif line.strip() and number <= content.count(b"\n"):
            damaged.append(number)
    if damaged:
        text = "%s is damaged in %d lines, the first of which is line %d: they are left out."
        logging.getLogger("train").warning(text, path, len(damaged), damaged[0])
    return rows


def is_row(row: Any) -> bool:
    """Whether a line of metrics.jsonl holds names and numbers, the epoch among them."""
    return isinstance(row, dict) and "epoch" in row and all(isinstance(v, int | float | None) for v in row.values())


def read_layers(run_dir: Path) -> list[dict[str, Any]]:
    """Return the rows of a run's layers.jsonl: a step, and what was measured of each layer."""

    def valid(row: Any) -> bool:
        if not isinstance(row, dict) or not isinstance(row.get("step"), int) or not isinstance(row.get("layers"), dict):
            return False
        return all(isinstance(each, dict) and is_row({"epoch": 0, **each}) for each in row["layers"].values())

    return read_rows(run_dir / "layers.jsonl", valid)


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace metrics.jsonl as a whole."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows), wait=False)


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Replace a CSV file as a whole; a row's missing columns stay empty."""
    content = io.StringIO()
    writer = csv.DictWriter(content, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, content.getvalue(), wait=False)

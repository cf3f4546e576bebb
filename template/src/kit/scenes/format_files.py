"""What the annotation formats share: names of splits, lists of images, and JSON files read entry by entry."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from src.kit.config import UserError
from src.kit.loading import SPLIT_NAMES
from src.kit.storage import sort_paths

CHUNK = 1 << 20  # characters
SPACE = re.compile(r"[ \t\n\r]*")
UNFINISHED = ("", ".", "e", "E")  # what may follow the whole part of a number
DECODER = json.JSONDecoder()


def by_split(paths: Iterable[Path]) -> dict[str, Path]:
    """Find the splits' paths by their names: train, instances_train, train2017 (and the others)."""
    by_name: dict[str, Path] = {}
    for path in sort_paths(paths):
        name = re.fullmatch(r"(?:instances_)?([a-z]+)(?:\d{4})?", path.stem.lower())
        if name and name[1] in SPLIT_NAMES:
            by_name.setdefault(SPLIT_NAMES[name[1]], path)
    return {split: by_name[split] for split in ("train", "val", "test") if split in by_name}


def subfolders(parent: Path) -> list[Path]:
    """The folders in `parent`; none if it doesn't exist."""
    return [child for child in parent.iterdir() if child.is_dir()] if parent.is_dir() else []


def stream(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield (key, entry) for every entry of every list of a JSON object, and (key, value) for its other values.

    A parsed COCO file would take ten times its size in memory.

    Raises:
        UserError: the file is missing, is no JSON or no JSON object.
    """
    reader = None
    try:
        with path.open(encoding="utf-8-sig") as file:
            reader = JsonReader(file)
            yield from reader.entries()
    except FileNotFoundError as error:
        raise UserError(f"The annotation file {path} does not exist.") from error
    except OSError as error:
        raise UserError(f"The annotation file {path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:  # a number of a million digits is a plain ValueError
        reason = str(error)
        if reader and isinstance(error, json.JSONDecodeError):
            reason = f"{error.msg} at character {reader.before + error.pos}"
        raise UserError(f"{path} is no JSON object ({reason}): export the annotations again.") from error


class JsonReader:
    """Decode one value after the other, with little more than the current one in memory."""

    def __init__(self, file: TextIO) -> None:
        self.file, self.buffer, self.position = file, "", 0
        self.before = 0  # characters before the buffer

    def entries(self) -> Iterator[tuple[str, Any]]:
        """Yield (key, entry) of a whole file."""
        self.expect("{")
        while self.peek() != "}":
            key = self.value()
            if not isinstance(key, str):
                raise json.JSONDecodeError("a key must be a text", self.buffer, self.position)
            self.expect(":")
            if self.peek() == "[":
                self.expect("[")
                while self.peek() != "]":
                    yield key, self.value()
                    self.comma("]")
                self.expect("]")
            else:
                yield key, self.value()
            self.comma("}")
        self.expect("}")
        if self.peek():
            raise json.JSONDecodeError("more text after the end", self.buffer, self.position)

    def comma(self, closing: str) -> None:
        """Step over a comma that another value follows, or stay before the closing bracket."""
        if self.peek() != closing:
            self.expect(",")
            if self.peek() == closing:
                raise json.JSONDecodeError("a comma before the end", self.buffer, self.position)

    def expect(self, mark: str) -> None:
        """Step over this character."""
        if self.peek() != mark:
            raise json.JSONDecodeError(f"{mark!r} is missing", self.buffer, self.position)
        self.position += 1

    def peek(self) -> str:
        """The next character that is no space; "" at the end of the file."""
        while True:
            space = SPACE.match(self.buffer, self.position)
            assert space is not None
            self.position = space.end()
            if self.position < len(self.buffer):
                return self.buffer[self.position]
            if not self.more():
                return ""

    def value(self) -> Any:
        """Decode the next value, whole even where the buffer ends within it."""
        self.peek()
        while True:
            try:
                value, end = DECODER.raw_decode(self.buffer, self.position)
            except json.JSONDecodeError:
                if not self.more():
                    raise
                continue
            # a number may go on in the next chunk, and its first digits alone are a number too
            if self.buffer[end : end + 1] not in UNFINISHED or not self.more():
                self.position = end
                return value

    def more(self) -> bool:
        """Read on, at least doubling the unread text; return False at the end of the file."""
        chunk = self.file.read(max(CHUNK, len(self.buffer) - self.position))
        if chunk:
            self.before += self.position
            self.buffer, self.position = self.buffer[self.position :] + chunk, 0
        return bool(chunk)

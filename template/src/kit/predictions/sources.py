"""Find what to predict: image files, folders, patterns, tables that list files, and the frames of videos."""

import argparse
import csv
import glob
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from src.kit.config import UserError
from src.kit.inference import Card
from src.kit.loading import SUFFIXES, find_images
from src.kit.storage import read_delimited

VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")
LISTS = (".csv", ".tsv", ".txt")
COLUMNS = ("file", "path", "image", "filename")  # of a CSV file that lists images


@dataclass(frozen=True)
class Source:
    """One sample: its name in predictions.csv, and what `Predictor.read` takes."""

    name: str
    load: Callable[[], Any]


def find_sources(paths: Sequence[str], options: argparse.Namespace, card: Card) -> Iterator[Source]:
    """The images that paths stand for.

    Paths are files, folders with all below them, patterns such as "photos/*.jpg", CSV files with a column `file`, and
    videos, of which one of `options.every` frames is taken.

    Raises:
        UserError: no such file, a folder without images, or a file that is none of these.
    """
    parts = [of_path(Path(path).expanduser(), options.every) for path in paths]  # mistakes come before any prediction
    return itertools.chain.from_iterable(parts)


def of_path(path: Path, every: int) -> Iterable[Source]:
    """The sources of one path or pattern."""
    suffix = path.suffix.lower()
    if path.is_dir():
        found = find_images(path)
        if not found:
            raise UserError(f"{path} holds no images ({', '.join(SUFFIXES)}): name another folder.")
        return [of_file(image) for image in found]
    if not path.exists() and (matches := sorted(glob.glob(str(path), recursive=True))):
        return [source for match in matches for source in of_path(Path(match), every)]
    if not path.is_file():
        raise UserError(f"{path} does not exist: name image files, folders, patterns, CSV files or videos.")
    if suffix in LISTS:
        return listed_files(path)
    if suffix in VIDEOS:
        return frames(path, every)
    if suffix not in SUFFIXES:
        raise UserError(f"{path} is not an image ({', '.join(SUFFIXES)}), a list (.csv) or a video (.mp4).")
    return [of_file(path)]


def of_file(path: Path) -> Source:
    """An image file."""
    return Source(path.as_posix(), lambda: path)


def listed_files(path: Path) -> list[Source]:
    """The images that a CSV file lists, relative to its folder or to the current one.

    Raises:
        UserError: it has no column of files, or lists a file that does not exist.
    """
    try:
        lines, delimiter = read_delimited(path)
        rows = list(csv.DictReader(lines, delimiter=delimiter))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as CSV ({error}): save it as UTF-8.") from error
    column = next((name for name in (rows[0] if rows else ()) if str(name).strip().lower() in COLUMNS), None)
    if column is None:
        raise UserError(f"{path} lists no images: it needs rows and a column called {' or '.join(COLUMNS)}.")
    sources = []
    for number, row in enumerate(rows, 2):
        name = (row[column] or "").strip()
        found = next((each for each in (path.parent / name, Path(name)) if name and each.is_file()), None)
        if found is None:
            raise UserError(f"{path}: line {number} names {name!r}, which is no file.")
        sources.append(of_file(found))
    return sources


def frames(path: Path, every: int) -> Iterator[Source]:
    """One of `every` frames of a video, in RGB, decoded by OpenCV; of a damaged one, a source that cannot be read."""
    import cv2

    video = cv2.VideoCapture(str(path))
    number = 0
    try:
        while video.grab():
            if number % every == 0:
                whole, pixels = video.retrieve()
                if whole:
                    yield Source(f"{path.as_posix()}#{number}", partial(np.ascontiguousarray, pixels[..., ::-1]))
            number += 1
    finally:
        video.release()
    if not number:
        yield Source(path.as_posix(), partial(refuse_video, path))


def refuse_video(path: Path) -> Any:
    """Raise the error for a file that OpenCV cannot decode."""
    raise UserError(f"{path} cannot be decoded as a video: convert it to MP4 with H.264.")

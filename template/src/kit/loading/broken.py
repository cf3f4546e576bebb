"""Images that cannot be read, or their class maps and annotations: list them all, or leave them out beforehand."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from src.kit.errors import UserError
from src.kit.hardware import SystemProbe, cores
from src.kit.inference import Reading, decode

LISTED = 20
SECONDS = 60  # of looking for more after the first one
CHUNK = 64  # images of a task of the thread pool
SIZE = 8  # pixels: JPEGs are then read completely, but hardly computed
ADVICE = (
    "Move them away with `python scripts/validate_data.py --quarantine` and the same data keys, or leave them out with "
    "data.on_error=skip."
)
listing = threading.Lock()  # several threads may stumble over images at once


def find_broken(images: Any, reading: Reading, seconds: float = float("inf")) -> Iterator[tuple[int, str]]:
    """Decode images with all cores; yield the index and the error of each that fails, in order, until time is up.

    `images.check_annotations(index)`, where there is one, raises for annotations that cannot be read.
    """
    check = getattr(images, "check_annotations", None)
    end = time.monotonic() + seconds

    def look(start: int) -> list[tuple[int, str]]:
        found = []
        for index in range(start, min(start + CHUNK, len(images))):
            if time.monotonic() > end:
                break
            try:
                for source in images.sources(np.array([index])):
                    decode(source, SIZE, reading)
                if check:
                    check(index)
            except UserError as error:
                found.append((index, str(error)))
        return found

    pool = ThreadPoolExecutor(cores(SystemProbe()))
    try:
        for found in pool.map(look, range(0, len(images), CHUNK)):
            yield from found
    finally:
        pool.shutdown(cancel_futures=True)


def list_broken(images: Any, reading: Reading, first: UserError) -> UserError:
    """One error for all images of a split that cannot be decoded, up to `LISTED`; `first` was met in training."""
    with listing:
        known: UserError | None = getattr(images, "broken", None)
        if known is None:
            found, end = {str(first): None}, time.monotonic() + SECONDS
            for _, sentence in find_broken(images, reading, SECONDS):
                found[sentence] = None
                if len(found) == LISTED:
                    break
            least = "At least " if len(found) == LISTED or time.monotonic() > end else ""
            many = f"{least}{len(found)} of {len(images):,}"
            lines = "".join(f"\n  {brief(sentence)}" for sentence in found)
            known = UserError(f"{many} image{'s' * (len(images) > 1)} cannot be read. {ADVICE}{lines}")
            images.broken = known
        return known


def brief(sentence: str) -> str:
    """An error of `decode` without what all of them have in common: "photos/cat.jpg: its content is no image"."""
    for word in ("Cannot decode ", "Cannot read ", "the class map "):
        sentence = sentence.removeprefix(word)
    return sentence.removesuffix(" Replace it or leave it out.").removesuffix(".")


def drop_broken(dataset: Any, reading: Reading, split: str) -> tuple[Any, str]:
    """A split without the images that cannot be read, and a sentence on them; "" if there are none.

    Raises:
        UserError: none is left.
    """
    found = dict(find_broken(dataset, reading))
    if not found:
        return dataset, ""
    kept = np.setdiff1d(np.arange(len(dataset)), list(found))
    if not len(kept):
        raise UserError(f"No image of the {split} split can be read. The first: {next(iter(found.values()))}")
    names = ["/".join(Path(brief(sentence).partition(": ")[0]).parts[-2:]) for sentence in found.values()]
    more = f" and {len(found) - LISTED:,} more" if len(found) > LISTED else ""
    sentence = (
        f"Left out {len(found):,} of {len(dataset):,} images of the {split} split, which cannot be read "
        f"(data.on_error=skip): {', '.join(names[:LISTED])}{more}."
    )
    return dataset.take(kept), sentence

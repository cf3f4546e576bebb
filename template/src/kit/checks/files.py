"""What a data set's folder holds; paths are relative to its root, with slashes."""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from src.kit.checks.images import Facts
from src.kit.checks.issues import Finding
from src.kit.loading import SUFFIXES

IMBALANCE = 10  # times as many samples in the largest class as in the smallest


class Entry(NamedTuple):
    """An image (or a row of a table) that belongs to the data set."""

    path: str
    split: str  # "train", "val", "test", or "" where nothing says
    label: str = ""  # its class, where an image has one


class Source:
    """A data set's layout. Making one finds the images; `check` follows when they have been looked at."""

    items = "images"  # what `entries` are
    unit = "objects"  # what the classes count
    task = ""  # that the data is for, where a task was named

    def __init__(self, root: Path) -> None:
        self.root = root
        self.entries: list[Entry] = []
        self.findings: list[Finding] = []
        self.classes: Sequence[str] = ()
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)  # split -> class -> samples
        self.recount: Callable[[Source], None] | None = None  # counts anew where splits are cut from the files'

    def check(self, facts: dict[str, Facts]) -> None:
        """Add what is wrong with the annotations, given the facts of every image by path."""

    def labels_of(self, path: str) -> list[str]:
        """The label files that go where this image goes."""
        return []

    def rewrite(self, gone: set[str]) -> dict[str, bytes]:
        """Annotation files that change when these images are gone, with their new content."""
        return {}

    def relative(self, path: Path) -> str:
        """A path below the root as findings name it."""
        return path.relative_to(self.root).as_posix()

    def add(self, kind: str, path: str, sentence: str) -> None:
        """Add a finding."""
        self.findings.append(Finding(kind, path, sentence))

    def add_strangers(self, folder: Path, known: Sequence[str] = ()) -> None:
        """Report the files at any depth that no reader takes for images."""
        for path in walk(folder):
            name = self.relative(folder / path)
            if not path.lower().endswith(SUFFIXES) and name not in known:
                self.add("not_an_image", name, f"Only {', '.join(SUFFIXES)} are read.")

    def check_balance(self) -> None:
        """Report classes without samples, and a training split in which some classes are rare."""
        if self.recount:
            self.recount(self)
        for split, counts in self.counts.items():
            where = f"The {split} split" if split else "The data set"
            for name in self.classes:
                if counts[name] == 0:
                    self.add("empty_class", name, f"{where} has no {self.unit} of the class {name}.")
            filled = [(counts[name], name) for name in self.classes if counts[name]]
            if split in ("train", "") and filled and max(filled)[0] >= IMBALANCE * min(filled)[0]:
                (most, frequent), (fewest, rare) = max(filled), min(filled)
                sentence = f"{where} has {most:,} {self.unit} of {frequent} and {fewest:,} of {rare}."
                self.add("imbalance", split or ".", sentence)


def walk(root: Path) -> list[str]:
    """Every file at any depth that is not hidden, sorted; relative to `root`, with slashes."""
    found = []
    for parent, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        prefix = Path(parent).relative_to(root).as_posix() + "/"
        found += [prefix.removeprefix("./") + name for name in names if not name.startswith(".")]
    return sorted(found)

"""Check a data set: choose its checker, run it, print and write what it found."""

import hashlib
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from itertools import groupby
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from omegaconf import DictConfig

from src.kit.catalog import SPLITS, build_dataset
from src.kit.checks.copies import find_copies
from src.kit.checks.findings import KINDS, SEVERITIES, Entry, Facts, Finding, ImageFiles, Source, refuse_links
from src.kit.checks.images import choose_reading, image_findings, inspect_files
from src.kit.checks.report import Result, own_folder, write_json_report, write_page
from src.kit.config import UserError, title_of
from src.kit.loading import SUFFIXES, Split, find_splits, is_hidden, refuse_file, scan_classes
from src.kit.run import read_json, write_json
from src.kit.storage import sort_paths

FOLDER = ".quarantine"
MANIFEST = "manifest.json"
NEW = ".new"  # suffix of a rewritten file until it replaces the original
Checker = type[ImageFiles] | Callable[[DictConfig], Source]  # called with the folder, or with the configuration
KIT = Path(__file__).resolve().parents[1]
CLASS_FOLDERS = ("image_folder", "imagenet")
BATCH_BYTES = 64 << 20  # of decoded images that are hashed at a time


def quarantine(source: ImageFiles, findings: Sequence[Finding]) -> Path | None:
    """Move the images with errors and their companion files, all or none. Returns the folder, None if nothing moved.

    A file that lists several images is moved too, and replaced by one that lists the remaining images.

    Raises:
        UserError: a file can't be moved, or a link leads out of the data set to it; then all of them are in place.
    """
    errors: dict[str, list[str]] = {}
    for finding in findings:
        if finding.severity == "error":
            errors.setdefault(finding.path, []).append(finding.sentence)
    images = {entry.path for entry in source.entries} & errors.keys()
    moved = sorted(images.union(*(source.companions(path) for path in images)))
    rewritten = source.rewrite(set(errors))
    if not moved and not rewritten:
        return None
    refuse_links(source.root, [*moved, *rewritten])
    target = new_folder(source.root / FOLDER)
    manifest = {
        "moved": [*moved, *rewritten],
        "rewritten": {path: sha256(content) for path, content in rewritten.items()},
        "reasons": {path: errors[path] for path in sorted(errors)},
    }
    write_json(target / MANIFEST, manifest)
    try:
        for path in moved:
            move(source.root / path, target / path)
        for path, content in rewritten.items():
            new = target / f"{path}{NEW}"
            new.parent.mkdir(parents=True, exist_ok=True)
            new.write_bytes(content)
            move(source.root / path, target / path)
            move(new, source.root / path)
    except OSError as error:
        restore_one(source.root, target)
        raise UserError(f"Nothing was moved, because {error.filename} can't be: {error.strerror}.") from error
    return target


def new_folder(parent: Path) -> Path:
    """Make a folder named after the time, with a number if several are made within one second."""
    name, number = time.strftime("%Y%m%d-%H%M%S"), 1
    while (folder := parent / (f"{name}-{number}" if number > 1 else name)).exists():
        number += 1
    folder.mkdir(parents=True)
    return folder


def restore(root: Path) -> int:
    """Undo all quarantines, newest first, and return the number of files.

    Raises:
        UserError: a file is in the way or missing, or a link leads out of the data set to its place; then this and the
            older quarantines stay as they are.
    """
    found = [path for path in (root / FOLDER).glob("*") if (path / MANIFEST).is_file()]
    found.sort(key=lambda folder: (folder.name[:15], len(folder.name), folder.name), reverse=True)
    return sum(restore_one(root, folder) for folder in found)


def restore_one(root: Path, folder: Path) -> int:
    """Undo one quarantine, all or nothing."""
    moved, rewritten = read_manifest(folder)
    refuse_links(root, moved)
    waiting = [path for path in moved if must_move_back(root / path, folder / path, rewritten.get(path))]
    replaced = {path: (root / path).read_bytes() for path in waiting if os.path.lexists(root / path)}
    done: list[str] = []
    try:
        for path in waiting:
            move(folder / path, root / path)
            done.append(path)
    except OSError as error:
        for path in done:
            move(root / path, folder / path)
        for path, content in replaced.items():
            (root / path).write_bytes(content)
        raise UserError(f"Nothing was put back, because {error.filename} can't be moved: {error.strerror}.") from error
    for path in rewritten:
        (folder / f"{path}{NEW}").unlink(missing_ok=True)
    (folder / MANIFEST).unlink()
    for parent in [*(parent for parent, _, _ in os.walk(folder, topdown=False)), str(folder.parent)]:
        if not os.listdir(parent):
            os.rmdir(parent)
    return len(waiting)


def read_manifest(folder: Path) -> tuple[list[str], dict[str, str]]:
    """The paths that were moved, and path -> SHA-256 of the replacements.

    Raises:
        UserError: the manifest is damaged, or names a path outside the folder.
    """
    try:
        manifest: Any = read_json(folder / MANIFEST)
        moved, rewritten = list(manifest["moved"]), dict(manifest["rewritten"])
        safe = all(is_inside(folder, path) for path in [*moved, *rewritten])
    except (ValueError, KeyError, TypeError, OSError, RuntimeError):
        safe = False
    if not safe:
        raise UserError(f"{folder / MANIFEST} is damaged: move the files back by hand.")
    return moved, rewritten


def is_inside(folder: Path, path: str) -> bool:
    """Whether a manifest's path stays within its quarantine: data sets are shared together with their folders."""
    if Path(path).anchor or ".." in Path(path).parts:  # Windows takes `C:a` and `/a` as relative, and leaves the folder
        return False
    return (folder / path).parent.resolve().is_relative_to(folder.resolve())  # no folder in it is a link


def must_move_back(original: Path, waiting: Path, replacement: str | None) -> bool:
    """Whether the file was moved.

    Raises:
        UserError: it is missing, or moving it back would overwrite something else than its `replacement`.
    """
    if not os.path.lexists(waiting):
        if os.path.lexists(original):
            return False  # it was never moved
        raise UserError(f"{waiting} is gone, so nothing from its quarantine was put back: move the rest by hand.")
    if os.path.lexists(original) and (replacement is None or sha256(original.read_bytes()) != replacement):
        raise UserError(f"{original} is in the way of its old version in {waiting}: move it, then run --restore again.")
    return True


def sha256(content: bytes) -> str:
    """SHA-256 as hexadecimal text."""
    return hashlib.sha256(content).hexdigest()


def move(source: Path, target: Path) -> None:
    """Move a file, creating the target's folder."""
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(source, target)


def check_data(
    cfg: DictConfig, workers: int, page: Path | None = None, json_path: Path | None = None, move: bool = False
) -> int:
    """Check `cfg.data`, print a summary, write both reports and return the number of errors.

    Args:
        page: the HTML report; None is `report.html` in the output folder.
        json_path: the JSON report; None is next to the page.
        move: quarantine the files with errors.

    Raises:
        UserError: as `check`, or `move` for a data set without image files.
    """
    if move and not is_movable(find_checker(cfg)):
        raise UserError(f"--quarantine moves image files, and {cfg.data.name} has none.")
    result = check(cfg, workers)
    page = page or own_folder(Path(cfg.output_dir) / f"data-report-{title_of(cfg.data)}", result) / "report.html"
    json_path = json_path or page.with_suffix(".json")
    write_page(result, page)
    write_json_report(result, json_path)
    print_summary(result)
    print(f"report: {page}\njson: {json_path}")
    if move and isinstance(result.source, ImageFiles):
        target = quarantine(result.source, result.findings)
        print(f"Moved the files with errors to {target}." if target else "No file to quarantine.")
    return result.count("error")


def print_summary(result: Result) -> None:
    """Print one line per kind of finding, with the first finding as an example."""
    count = len(result.source.entries)
    totals = {severity: result.count(severity) for severity in SEVERITIES}
    counts = ", ".join(f"{total:,} {severity}{'s' * (total != 1)}" for severity, total in totals.items())
    speed = f"{count / max(result.seconds, 1e-9):,.0f} {result.source.items}/s"
    print(f"{count:,} {result.source.items} of {result.name} in {result.seconds:.1f} s ({speed}): {counts}")
    for kind, group in groupby(result.findings, lambda finding: finding.kind):
        found = list(group)
        first = printable(f"such as {found[0].path}: {found[0].sentence}".removeprefix("such as .: "))
        print(f"  {KINDS[kind].severity:7s} {len(found):7,}  {KINDS[kind].title}\n{'':19}{first}")


def printable(text: str) -> str:
    """Replace control characters, which a file's name may contain, and letters that this terminal can't encode."""
    encoding = sys.stdout.encoding or "utf-8"
    shown = "".join(letter if letter.isprintable() else "?" for letter in text)
    return shown.encode(encoding, "replace").decode(encoding)


def restore_data(cfg: DictConfig) -> None:
    """Undo every quarantine of the data set's folder."""
    root = Path(cfg.data.get("root") or ".").expanduser()
    count = restore(root)
    print(f"Restored {count:,} files." if count else f"{root} has no quarantine.")


def check(cfg: DictConfig, workers: int) -> Result:
    """Check the data set `cfg.data` with `workers` threads.

    Raises:
        UserError: the folder is missing, or its content is not this kind of data set at all.
    """
    started = time.perf_counter()
    checker = find_checker(cfg)
    facts: Mapping[str, Facts] = {}
    source: Source
    if isinstance(checker, type):
        source, facts = check_files(checker, cfg, workers)
    else:
        source = checker(cfg)
    order = {kind: (SEVERITIES.index(KINDS[kind].severity), number) for number, kind in enumerate(KINDS)}
    findings = sorted(source.findings, key=lambda finding: (order[finding.kind], finding.path, finding.sentence))
    return Result(title_of(cfg.data), source, facts, findings, time.perf_counter() - started, is_movable(checker))


def find_checker(cfg: DictConfig) -> Checker:
    """The checker of `cfg.data`.

    Every package `src/kit/*_checks` is asked first (`find_checker(cfg)`, None if the data is not its kind). Class
    folders have a checker here; any other data set is built and its images are checked as training gets them.
    """
    for package in extensions():
        if checker := package.find_checker(cfg):
            return checker  # type: ignore[no-any-return]
    return ClassFolders if cfg.data.get("file", cfg.data.name) in CLASS_FOLDERS else check_arrays


def extensions() -> list[ModuleType]:
    """The kit's packages of further checks. Importing them adds their kinds to `KINDS`."""
    names = sorted(path.stem for path in KIT.glob("*_checks*") if path.suffix == ".py" or any(path.glob("*.py")))
    return [import_module(f"{KIT.parent.name}.{KIT.name}.{name}") for name in names]


def is_movable(checker: Checker) -> bool:
    """Whether the data set consists of image files, which a quarantine can move."""
    return isinstance(checker, type)


def check_files(checker: type[ImageFiles], cfg: DictConfig, workers: int) -> tuple[ImageFiles, Mapping[str, Facts]]:
    """Check a folder of images; returns its source and the facts of every image by path."""
    refuse_file(root := Path(cfg.data.root).expanduser())
    if not root.is_dir():
        raise UserError(f"data.root={root} does not exist: set data.root, or fetch the data with scripts/download.py.")
    source = checker(root)
    source.task, source.image_size = cfg.get("task", ""), cfg.data.image_size
    source.recount = partial(count_splits, cfg) if cfg.data.get("group_pattern") else None
    paths = [entry.path for entry in source.entries]
    reading = source.reading = choose_reading(cfg, source)
    inspected = inspect_files([os.path.join(root, path) for path in paths], workers, reading)
    facts = dict(zip(paths, inspected, strict=True))
    source.findings += image_findings(facts, cfg.data.image_size)
    source.findings += find_copies(source.entries, inspected)
    source.check(facts)
    return source, facts


def count_splits(cfg: DictConfig, source: Source) -> None:
    """Count the samples in the splits that training cuts: whole groups stay together, so a split may lack a class.

    Keeps the files' own counts if all splits have files, or if errors would stop training.
    """
    if set(SPLITS) <= source.counts.keys() or any(finding.severity == "error" for finding in source.findings):
        return
    try:
        splits = {split: build_dataset(cfg, split) for split in SPLITS}
    except UserError as error:
        source.add("structure", ".", str(error))
        return
    source.classes = splits["train"].classes
    source.counts.clear()
    for split, data in splits.items():
        source.counts[split].update(dict(zip(data.classes, data.class_counts().tolist(), strict=True)))


def check_arrays(cfg: DictConfig) -> Source:
    """Check any data set of images with one class each: counts, balance, and exact copies within and between splits.

    Image 7 of a split is called train[7]. A file's structure and checksum are the data set's own business.

    Raises:
        UserError: the data set can't be built, or has no images with one class each.
    """
    source = Source(Path(cfg.data.get("root") or "."))
    facts: list[Facts] = []
    for split in SPLITS:
        data = build_dataset(cfg, split)
        if not isinstance(data, Split):
            raise UserError(f"data={cfg.data.name} has no checks: they are for images with one class each.")
        source.classes = data.classes
        source.counts[split].update(dict.fromkeys(data.classes, 0))
        source.counts[split].update(data.classes[target] for target in data.targets)
        batch = max(1, BATCH_BYTES // int(np.prod(data.images.shape)))
        for start in range(0, len(data), batch):
            images = data.images.get(np.arange(start, min(start + batch, len(data))))
            for number, image in enumerate(images, start):
                source.entries.append(Entry(f"{split}[{number}]", split, data.classes[data.targets[number]]))
                facts.append(Facts(image.nbytes, hashlib.sha256(image.tobytes()).digest()[:16]))
    source.findings += find_copies(source.entries, facts)
    source.check_balance()
    return source


class ClassFolders(ImageFiles):
    """Check class folders: root/<class>/* or root/{train,val,test}/<class>/*."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        splits = find_splits(root)
        for split, folder in splits.items():
            name = split if len(splits) > 1 or folder != root else ""
            found = scan_classes(folder)
            for label, paths in found.items():
                self.entries += [Entry(self.relative(path), name, label) for path in paths]
                self.counts[name][label] = len(paths)
            if split == "train":
                self.classes = tuple(found)
                if len(found) < 2:
                    sentence = f"It has images in {len(found)} class folders; at least 2 are needed."
                    self.add("structure", name or ".", sentence)
            self.check_folder(folder, set(found))
            for label in sorted(set(found) - set(self.classes)):
                self.add("class_only_here", self.relative(folder / label), f"The training split has no class {label}.")

    def check_folder(self, folder: Path, classes: set[str]) -> None:
        """Report images outside the class folders, folders without images, and files that are no images."""
        for child in sort_paths(folder.iterdir()):
            if is_hidden(child.name):
                continue
            if child.is_dir():
                self.add_strangers(child)
                if child.name not in classes:
                    self.add("empty_class", self.relative(child), "The folder has no images, so it is not a class.")
            elif child.name.lower().endswith(SUFFIXES):
                self.add("no_class", self.relative(child), "It is in no class folder, so it is ignored.")

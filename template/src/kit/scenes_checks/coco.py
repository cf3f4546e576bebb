"""Check COCO annotation files, https://cocodataset.org/#format-data, and report every fault.

The reader, `src.kit.scenes.coco`, stops at the first one.
"""

import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from src.kit.checks import KINDS, Entry, Facts, Finding, ImageFiles, Kind, Region
from src.kit.loading import find_images
from src.kit.scenes import find_coco_splits, stream

SLACK = 1.0  # pixels that boxes may reach beyond the image: publishers round
NEED_OUTLINES = ("instance_segmentation", "segmentation")  # tasks

Fault = tuple[str, str]  # a finding's kind, and the end of its sentence

FIX = "Fix the annotation, or move the image away with --quarantine."
KINDS.update(
    annotation_unreadable=Kind("error", "Unreadable annotation files", "Export the file again."),
    annotation_invalid=Kind("error", "Invalid annotations", FIX),
    class_unknown=Kind("error", "Unknown class ids", f"Add the class. {FIX}"),
    duplicate_id=Kind("error", "Duplicate ids", "Renumber the entries: every id must be unique."),
    missing_image=Kind("error", "Annotations of missing images", "Add the images or remove their annotations."),
    size_mismatch=Kind("error", "Image size differs from annotation", "Export the annotations for these files."),
    box_empty=Kind("error", "Boxes without area", FIX),
    box_outside=Kind("error", "Boxes outside the image", FIX),
    polygon_short=Kind("error", "Outlines with fewer than 3 points", FIX),
    outline_needed=Kind("error", "Objects without an outline", "Outline them, or train with task=detection."),
    box_beyond=Kind("warning", "Boxes reaching beyond the image", "They are clipped. Check that they fit."),
    outline_missing=Kind(
        "warning", "Some objects without an outline", "Outline them too. Otherwise no outline is used."
    ),
    class_twice=Kind("warning", "Duplicate class names", "Rename one: results can't tell them apart."),
    unlabelled=Kind("warning", "Images without labels", "Add labels, unless the image is meant as background."),
    label_without_image=Kind("warning", "Labels without an image", "Add the image or delete the label file."),
    class_gap=Kind("warning", "Gaps in class ids", "Number the classes 0, 1, 2, ... without gaps."),
    category_gap=Kind("note", "Gaps in category ids", "They are renumbered when read."),
    rotated=KINDS["rotated"]._replace(advice="Annotations must refer to the image as shown, not as stored."),
)
Entries = Iterable[tuple[str, Any]]  # section, entry
BROKEN = (ValueError, OSError, RecursionError)  # a number of a million digits is a plain ValueError


class Outlines:
    """Count the objects of a split with and without an outline. Training needs one for every object, or uses none."""

    def __init__(self) -> None:
        self.present = self.missing = 0
        self.first = ""  # the first object without one

    def count(self, present: bool, where: str) -> None:
        """Count one object, which messages call `where`."""
        self.present += present
        self.missing += not present
        self.first = self.first or ("" if present else where)

    def faults(self, task: str) -> Iterator[Fault]:
        """Report missing outlines: an error if the task needs them, else a warning if some objects have one."""
        verb = "has" if self.missing == 1 else "have"
        counts = f"{self.missing:,} of {self.present + self.missing:,} objects {verb} no outline, such as {self.first}"
        if self.missing and task in NEED_OUTLINES:
            yield "outline_needed", f"{counts}, and task={task} needs one for every object"
        elif self.missing and self.present:
            yield "outline_missing", f"{counts}, so the outlines of the others are not used"


def numbers(values: Any) -> list[float] | None:
    """The values if they are a list of finite numbers, else None."""
    if not isinstance(values, list) or any(
        isinstance(value, bool) or not isinstance(value, int | float) for value in values
    ):
        return None
    try:
        found = [float(value) for value in values]
    except OverflowError:
        return None
    return found if all(map(math.isfinite, found)) else None


def box_faults(box: Region, width: float, height: float) -> Iterator[Fault]:
    """Faults of a box in an image of `width` x `height`, all in the same unit."""
    left, top, right, bottom = box
    shown = ", ".join(f"{value:.6g}" for value in box)
    if right <= left or bottom <= top:
        yield "box_empty", f"the box ({shown}) has no area"
    elif right <= 0 or bottom <= 0 or left >= width or top >= height:
        yield "box_outside", f"the box ({shown}) is outside the image of {width:.6g} x {height:.6g}"
    elif min(left, top) < -SLACK or right > width + SLACK or bottom > height + SLACK:
        yield "box_beyond", f"the box ({shown}) reaches beyond the image of {width:.6g} x {height:.6g}"


def polygon_faults(rings: Sequence[Any]) -> Iterator[Fault]:
    """Faults of an outline's rings, each x, y, x, y, ..."""
    for ring in rings:
        points = numbers(ring)
        if points is None or len(points) % 2:
            yield "annotation_invalid", "an outline does not consist of pairs of numbers"
        elif len(points) < 6:
            yield "polygon_short", f"an outline has {len(points) // 2} points"


def brief(value: Any) -> str:
    """A value for a message, at most 80 letters."""
    return repr(value)[:80]


def gap(ids: Sequence[int]) -> str:
    """The ids missing between the smallest and the largest, as the end of a sentence; "" if there are none."""
    present = set(ids)
    if not present or max(present) - min(present) + 1 == len(present):
        return ""
    missing: list[str] = []
    for number in range(min(present), max(present)):
        if number not in present:
            missing.append(str(number))
        if len(missing) > 10:  # enough to see; an id of a billion must not cost a billion steps
            return f"{', '.join(missing[:10])} and more are missing"
    return f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"


class CocoFolder(ImageFiles):
    """Check a folder with COCO annotation files."""

    unit = "objects"

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        splits = find_coco_splits(root)
        folders = {folder for _, folder, _ in splits.values() if folder.is_dir()}
        on_disk = dict.fromkeys(self.relative(path) for folder in sorted(folders) for path in find_images(folder))
        self.files: list[CocoFile] = []
        owners: dict[str, str] = {}  # image -> its split
        for split, (path, folder, maps) in splits.items():
            file = CocoFile(split, self.relative(path), self.relative(folder), maps is not None)
            self.files.append(file)
            try:
                file.read_images(stream(path), on_disk)
            except BROKEN as error:
                file.unreadable = True
                file.add("annotation_unreadable", file.name, str(error).removeprefix(f"{path} ").rstrip("."))
            for name in on_disk.keys() & file.sizes.keys():
                if (owner := owners.setdefault(name, split)) != split:
                    file.add("leak", name, f"The annotation files of {owner} and {split} both list it.")
        self.entries = [Entry(name, owners.get(name, "")) for name in on_disk]
        self.classes = tuple(dict.fromkeys(name for file in self.files for name in file.classes.values()))
        for folder in sorted(folders):
            self.add_strangers(folder, [file.name for file in self.files])

    def check(self, facts: Mapping[str, Facts]) -> None:
        """Check every annotation."""
        for file in self.files:
            file.check_sizes(facts)
            if not file.unreadable:
                self.counts[file.split] = file.read_annotations(stream(self.root / file.name), facts)
                mapped = file.class_maps and self.task == "segmentation"  # its class maps stand in for outlines
                for kind, sentence in file.outlines.faults("" if mapped else self.task):
                    file.add(kind, file.split, sentence)
            self.findings += file.findings
        for entry in self.entries:
            if not entry.split:
                self.add("unlabelled", entry.path, "No annotation file lists it.")
        self.check_balance()

    def rewrite(self, gone: set[str]) -> dict[str, bytes]:
        """The annotation files that mention `gone`, without these images and without entries of no image."""
        changed = {}
        for file in self.files:
            if not file.unreadable and gone & {file.name, *file.images.values(), *file.missing.values()}:
                content = json.loads((self.root / file.name).read_text("utf-8-sig"))
                changed[file.name] = json.dumps(without(content, file, gone)).encode()
        return changed


class CocoFile:
    """Check the entries of one file. Call `read_images` first: annotations may precede their images in the file."""

    def __init__(self, split: str, name: str, folder: str, class_maps: bool = False) -> None:
        """`name` of the file and `folder` of its images are relative to the data set's root."""
        self.split, self.name, self.folder, self.class_maps = split, name, folder, class_maps
        self.unreadable = False
        self.findings: list[Finding] = []
        self.images: dict[int | str, str] = {}  # id -> path of the images that exist
        self.missing: dict[int | str, str] = {}  # id -> path of those that don't
        self.sizes: dict[str, tuple[Any, Any]] = {}  # path -> width and height as annotated
        self.classes: dict[int | str, str] = {}
        self.outlines = Outlines()

    def add(self, kind: str, path: str, sentence: str, box: Region | None = None) -> None:
        """Add a finding; its sentence gets the file's name in front."""
        self.findings.append(Finding(kind, path, f"{self.name}: {sentence}.", region=box))

    def read_images(self, entries: Entries, on_disk: Collection[str]) -> None:
        """Read the lists of images and categories."""
        for section, entry in entries:
            if section == "images":
                self.read_image(entry, on_disk)
            elif section == "categories":
                self.read_category(entry)
        if not (self.images or self.missing) or not self.classes:
            self.add("annotation_unreadable", self.name, "it lists no images or no categories")
        if missing := gap([number for number in self.classes if isinstance(number, int)]):
            self.add("category_gap", self.name, f"of the category ids, {missing}")

    def read_image(self, entry: Any, on_disk: Collection[str]) -> None:
        """Read an entry of "images"."""
        identifier, file = (entry.get("id"), entry.get("file_name")) if isinstance(entry, dict) else (None, None)
        if identifier is None or not is_id(identifier) or not isinstance(file, str):
            self.add("annotation_invalid", self.name, f"an image needs an id and a file_name: {brief(entry)}")
            return
        relative = PurePosixPath(file)
        if relative.is_absolute() or ".." in relative.parts or "\\" in file:
            self.add("annotation_invalid", self.name, f"the file_name {file[:80]!r} is not a path inside {self.folder}")
            return
        path = (PurePosixPath(self.folder) / relative).as_posix()
        for other in (self.images.get(identifier), self.missing.get(identifier)):
            if other:
                self.add("duplicate_id", path, f"{other} and {path} have the same id {identifier!r}")
                self.add("duplicate_id", other, f"{other} and {path} have the same id {identifier!r}")
        if path in self.sizes:
            self.add("duplicate_id", path, f"{path} is listed twice")
        self.sizes[path] = entry.get("width"), entry.get("height")
        (self.images if path in on_disk else self.missing)[identifier] = path
        if path not in on_disk:
            self.add("missing_image", path, f"image {identifier!r} is {path}, which does not exist")

    def read_category(self, entry: Any) -> None:
        """Read an entry of "categories"."""
        if not isinstance(entry, dict) or not is_id(entry.get("id")) or "name" not in entry:
            self.add("annotation_invalid", self.name, f"a category needs an id and a name: {brief(entry)}")
        elif entry["id"] in self.classes:
            self.add("duplicate_id", self.name, f"two categories have the id {entry['id']!r}")
        else:
            if (name := str(entry["name"])) in self.classes.values():
                self.add("class_twice", self.name, f"two categories have the name {name[:80]!r}")
            self.classes[entry["id"]] = name

    def check_sizes(self, facts: Mapping[str, Facts]) -> None:
        """Compare the annotated sizes with the images' after EXIF rotation."""
        for path, size in self.sizes.items():
            found = facts[path].shown if path in facts else (0, 0)
            if found[0] and size != found:
                turned = " after EXIF rotation" if facts[path].orientation != 1 else ""
                sentence = (
                    f"it is annotated as {size[0]!r} x {size[1]!r} pixels but has {found[0]} x {found[1]}{turned}"
                )
                self.add("size_mismatch", path, sentence[:300])

    def read_annotations(self, entries: Entries, facts: Mapping[str, Facts]) -> Counter[str]:
        """Check the annotations and count the objects of each class."""
        counts = Counter(dict.fromkeys(self.classes.values(), 0))
        seen: set[int | str] = set()
        for section, entry in entries:
            if section != "annotations":
                continue
            owner = entry.get("image_id") if isinstance(entry, dict) else None
            if not is_id(owner) or owner not in self.images:
                if not is_id(owner) or owner not in self.missing:
                    self.add("annotation_invalid", self.name, f"an annotation of no listed image: {brief(entry)}")
                continue
            path, identifier = self.images[owner], entry.get("id")
            where = f"annotation {str(identifier)[:40]}"
            if not is_id(identifier):
                self.add("annotation_invalid", path, f"an annotation needs an id: {brief(entry)}")
            elif identifier in seen:
                self.add("duplicate_id", path, f"two annotations have the id {identifier!r}")
            else:
                seen.add(identifier)
            category = entry.get("category_id")
            if is_id(category) and category in self.classes:
                counts[self.classes[category]] += 1
            else:
                self.add("class_unknown", path, f"{where} has the category_id {brief(category)}, which is not listed")
            self.outlines.count(bool(entry.get("segmentation")), f"{where} of {path}")
            size = facts[path].shown if facts[path].width else (float("inf"), float("inf"))
            for kind, sentence, box in entry_faults(entry, *size):
                self.add(kind, path, f"{where}: {sentence}", box)
        return counts


def without(content: dict[str, Any], file: CocoFile, gone: set[str]) -> dict[str, Any]:
    """An annotation file's content without the images in `gone` and without annotations of no remaining image."""
    kept = {identifier for identifier, path in file.images.items() if path not in gone}
    parts = {section: content.get(section, []) for section in ("images", "annotations")}
    for section, key in (("images", "id"), ("annotations", "image_id")):
        entries = parts[section] if isinstance(parts[section], list) else []
        valid = (entry for entry in entries if isinstance(entry, dict) and is_id(entry.get(key)))
        parts[section] = [entry for entry in valid if entry[key] in kept]
    return {**content, **parts}


def entry_faults(entry: dict[str, Any], width: float, height: float) -> Iterator[tuple[str, str, Region | None]]:
    """Faults of an annotation's "bbox" (x, y, width, height) and "segmentation"."""
    corner = numbers(entry.get("bbox"))
    if corner is None or len(corner) != 4:
        yield "annotation_invalid", f"the bbox is {brief(entry.get('bbox'))}, not four numbers", None
    else:
        box = (corner[0], corner[1], corner[0] + corner[2], corner[1] + corner[3])
        yield from ((*fault, box) for fault in box_faults(box, width, height))
    outline = entry.get("segmentation")
    yield from ((*fault, None) for fault in (polygon_faults(outline) if isinstance(outline, list) else ()))


def is_id(value: Any) -> bool:
    """Whether the value can be an id."""
    return isinstance(value, int | str) and not isinstance(value, bool)

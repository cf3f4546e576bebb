"""Check COCO annotation files, https://cocodataset.org/#format-data, and report every fault.

The reader, `read_coco`, stops at the first one. Both read values with the functions of `src.kit.scenes`.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from src.kit.checks import Entry, Facts, Finding, ImageFiles, Region
from src.kit.config import UserError
from src.kit.loading import find_images
from src.kit.scenes import (
    corners,
    find_class_map,
    find_coco_splits,
    flag,
    identifier,
    inner_path,
    project_category,
    read_outline,
    refuse_missing_maps,
    shown,
    stream,
    text,
    whole,
)
from src.kit.scenes_checks.class_maps import Classes, map_findings
from src.kit.scenes_checks.kinds import NEED_OUTLINES, Outlines, Sides, box_faults, gap
from src.kit.storage import sort_paths

Entries = Iterable[tuple[str, Any]]  # section, entry
BROKEN = (ValueError, OSError, RecursionError)  # a number of a million digits is a plain ValueError


class CocoFolder(ImageFiles):
    """Check a folder with COCO annotation files."""

    unit = "objects"

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        splits = find_coco_splits(root)
        folders = {folder for _, folder, _ in splits.values() if folder.is_dir()}
        on_disk = dict.fromkeys(self.relative(path) for folder in sort_paths(folders) for path in find_images(folder))
        self.files: list[CocoFile] = []
        owners: dict[str, str] = {}  # image -> its split
        for split, (path, folder, maps) in splits.items():
            file = CocoFile(split, self.relative(path), self.relative(folder), maps)
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
        for folder in sort_paths(folders):
            self.add_strangers(folder, [file.name for file in self.files])

    def check(self, facts: Mapping[str, Facts]) -> None:
        """Check every annotation."""
        if self.task == "segmentation":
            try:
                refuse_missing_maps(self.root, find_coco_splits(self.root))
            except UserError as error:
                self.add("structure", "class_maps", str(error))
        for file in self.files:
            file.check_sizes(facts)
            if not file.unreadable:
                self.counts[file.split] = file.read_annotations(stream(self.root / file.name), facts, self.task)
                for kind, sentence in file.sides.faults(self.image_size):
                    file.add(kind, file.split, sentence)
                mapped = file.class_maps and self.task == "segmentation"  # its class maps stand in for outlines
                for kind, sentence in file.outlines.faults("" if mapped else self.task):
                    file.add(kind, file.split, sentence)
                if mapped:
                    file.findings += map_findings(
                        self.root,
                        file.split,
                        {path: file.find_map(path) for path in file.images.values()},
                        facts,
                        file.map_classes(),
                        Counter(),
                    )
            self.findings += file.findings
        self.classes = tuple(dict.fromkeys(name for file in self.files for name in file.classes.values()))
        for entry in self.entries:
            if not entry.split:
                self.add("unlabelled", entry.path, "No annotation file lists it.")
        self.check_balance()

    def companions(self, path: str) -> list[str]:
        """The image's class map if it exists."""
        maps = (file.find_map(path) for file in self.files if file.class_maps and path in file.sizes)
        return [self.relative(found) for found in maps if found.is_file()]

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

    def __init__(self, split: str, name: str, folder: str, class_maps: Path | None = None) -> None:
        """`name` of the file and `folder` of its images are relative to the data set's root."""
        self.split, self.name, self.folder, self.class_maps = split, name, folder, class_maps
        self.unreadable = False
        self.findings: list[Finding] = []
        self.images: dict[int | str, str] = {}  # id -> path of the images that exist
        self.missing: dict[int | str, str] = {}  # id -> path of those that don't
        self.sizes: dict[str, tuple[Any, Any]] = {}  # path -> width and height as annotated
        self.classes: dict[int, str] = {}
        self.categories: dict[int, dict[str, Any]] = {}
        self.outlines, self.sides = Outlines(), Sides()

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

    def read_image(self, entry: Any, on_disk: Collection[str]) -> None:
        """Read an entry of "images"."""
        number, file = (
            (identifier(entry.get("id")), entry.get("file_name")) if isinstance(entry, dict) else (None, None)
        )
        if number is None or not isinstance(file, str):
            self.add("annotation_invalid", self.name, f"an image needs an id and a file_name: {shown(entry)}")
            return
        if (relative := inner_path(file)) is None:
            self.add("annotation_invalid", self.name, f"the file_name {shown(file)} is not a path inside {self.folder}")
            return
        path = (PurePosixPath(self.folder) / relative).as_posix()
        for other in (self.images.get(number), self.missing.get(number)):
            if other:
                self.add("duplicate_id", path, f"{other} and {path} have the same id {shown(number)}")
                self.add("duplicate_id", other, f"{other} and {path} have the same id {shown(number)}")
        if path in self.sizes:
            self.add("duplicate_id", path, f"{path} is listed twice")
        sides = entry.get("width"), entry.get("height")
        width, height = (shown(side) if whole(side) is None else whole(side) for side in sides)
        self.sizes[path] = width, height
        (self.images if path in on_disk else self.missing)[number] = path
        if path not in on_disk:
            self.add("missing_image", path, f"image {shown(number)} is {path[:300]}, which does not exist")

    def read_category(self, entry: Any) -> None:
        """Read an entry of "categories"."""
        number, name = (whole(entry.get("id")), text(entry.get("name"))) if isinstance(entry, dict) else (None, None)
        if number is None or name is None:
            self.add("annotation_invalid", self.name, f"a category needs a whole id and a name: {shown(entry)}")
        elif number in self.classes:
            self.add("duplicate_id", self.name, f"two categories have the id {number}")
        else:
            self.classes[number] = name
            self.categories[number] = {"name": name, "supercategory": entry.get("supercategory")}

    def check_classes(self, counts: Counter[int]) -> Counter[str]:
        """Report doubtful categories; `counts` are the objects of each id, and the result those of each name."""
        project = project_category(self.categories)
        if project is not None and not counts[project]:
            name = self.classes.pop(project)
            self.add("category_project", self.name, f"category 0, {shown(name)}, is the others' supercategory")
        for name, times in Counter(self.classes.values()).items():
            if times > 1:
                self.add("class_twice", self.name, f"{times} categories have the name {shown(name)}")
        if missing := gap(list(self.classes)):
            self.add("category_gap", self.name, f"of the category ids, {missing}")
        named = Counter(dict.fromkeys(self.classes.values(), 0))
        for number, name in self.classes.items():
            named[name] += counts[number]
        return named

    def find_map(self, path: str) -> Path:
        """The class map of an image."""
        assert self.class_maps is not None
        return find_class_map(self.class_maps, PurePosixPath(path).relative_to(self.folder))

    def map_classes(self) -> Classes:
        """What ids mean in class maps."""
        return Classes(self.classes, 0 not in self.classes)

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

    def read_annotations(self, entries: Entries, facts: Mapping[str, Facts], task: str) -> Counter[str]:
        """Check the annotations and count the objects of each class."""
        counts: Counter[int] = Counter()
        seen: set[int | str] = set()
        for section, entry in entries:
            if section != "annotations":
                continue
            owner = identifier(entry.get("image_id")) if isinstance(entry, dict) else None
            if owner is None or owner not in self.images:
                if owner is None or owner not in self.missing:
                    self.add("annotation_invalid", self.name, f"an annotation of no listed image: {shown(entry)}")
                continue
            path, number = self.images[owner], identifier(entry.get("id"))
            where = f"annotation {shown(number)}"
            if number is None:
                self.add("annotation_invalid", path, f"an annotation needs an id: {shown(entry)}")
            elif number in seen:
                self.add("duplicate_id", path, f"two annotations have the id {shown(number)}")
            else:
                seen.add(number)
            category = whole(entry.get("category_id"))
            if category is not None and category in self.classes:
                counts[category] += 1
            else:
                unknown = shown(entry.get("category_id"))
                self.add("class_unknown", path, f"{where} has the category_id {unknown}, which is not listed")
            size = facts[path].shown if facts[path].width else (float("inf"), float("inf"))
            outline, faults = outline_faults(entry, size, task)
            self.outlines.count(outline, f"{where} of {path}")
            if (box := corners(entry.get("bbox"))) is not None:
                self.sides.count(box, size, f"{where} of {path}")
            for kind, sentence, region in (*box_entry_faults(entry, *size), *faults):
                self.add(kind, path, f"{where}: {sentence}", region)
        return self.check_classes(counts)


def without(content: dict[str, Any], file: CocoFile, gone: set[str]) -> dict[str, Any]:
    """An annotation file's content without the images in `gone` and without annotations of no remaining image."""
    kept = {number for number, path in file.images.items() if path not in gone}
    parts = {section: content.get(section, []) for section in ("images", "annotations")}
    for section, key in (("images", "id"), ("annotations", "image_id")):
        entries = parts[section] if isinstance(parts[section], list) else []
        valid = (entry for entry in entries if isinstance(entry, dict))
        parts[section] = [entry for entry in valid if identifier(entry.get(key)) in kept]
    return {**content, **parts}


def box_entry_faults(entry: Mapping[str, Any], width: float, height: float) -> Iterator[tuple[str, str, Region | None]]:
    """Faults of an annotation's "bbox" and "iscrowd" in an image of this size."""
    if (box := corners(entry.get("bbox"))) is None:
        yield "annotation_invalid", f"the bbox is {shown(entry.get('bbox'))}, not four numbers", None
    else:
        yield from ((*fault, box) for fault in box_faults(box, width, height))
    if flag(entry.get("iscrowd")) is None:
        yield "annotation_invalid", f"iscrowd is {shown(entry['iscrowd'])}, not 0 or 1", None


def outline_faults(
    entry: Mapping[str, Any], size: tuple[float, float], task: str
) -> tuple[bool, list[tuple[str, str, Region | None]]]:
    """Whether an annotation's "segmentation" is of use in an image of (width, height), and its faults.

    A wrong one is an error only for a task that needs it.
    """
    outline, fault = read_outline(entry.get("segmentation"))
    height_width = [size[1], size[0]]
    if isinstance(outline, Mapping) and size[0] < float("inf") and list(outline["size"]) != height_width:
        sentence = f"a run-length code has the size {list(outline['size'])}, and the image {height_width}"
        outline, fault = None, ("annotation_invalid", sentence)
    found: list[tuple[str, str, Region | None]] = []
    if fault:
        kind, sentence = fault
        found.append((kind if outline is None and task in NEED_OUTLINES else "outline_unused", sentence, None))
    for ring in () if isinstance(outline, Mapping) else outline or ():
        edges = [(min(ring[axis::2]), max(ring[axis::2]), size[axis]) for axis in (0, 1)]
        if any(low < -length or high > 2 * length for low, high, length in edges):
            sentence = f"an outline reaches from {edges[0][0]:.6g}, {edges[1][0]:.6g} to {edges[0][1]:.6g}, "
            found.append(("outline_beyond", f"{sentence}{edges[1][1]:.6g}", None))
            break
    return outline is not None, found

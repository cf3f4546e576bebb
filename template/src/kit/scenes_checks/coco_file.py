"""Check the entries of one COCO annotation file: https://cocodataset.org/#format-data."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

from src.kit.checks import Box, Facts, Finding
from src.kit.scenes_checks.annotations import Outlines, brief, entry_faults, gap

Entries = Iterable[tuple[str, Any]]  # section, entry


class CocoFile:
    """`read_images` comes first, since annotations may precede the images that they are of."""

    def __init__(self, split: str, name: str, folder: str, class_maps: bool = False) -> None:
        """`name` and `folder` (of the images) are relative to the data set's root."""
        self.split, self.name, self.folder, self.class_maps = split, name, folder, class_maps
        self.unreadable = False
        self.findings: list[Finding] = []
        self.images: dict[int | str, str] = {}  # id -> path, of the images that are there
        self.missing: dict[int | str, str] = {}  # the others
        self.sizes: dict[str, tuple[Any, Any]] = {}  # path -> width and height as annotated
        self.classes: dict[int | str, str] = {}
        self.outlines = Outlines()

    def add(self, kind: str, path: str, sentence: str, box: Box | None = None) -> None:
        """Add a finding, whose sentence begins with the file."""
        self.findings.append(Finding(kind, path, f"{self.name}: {sentence}.", box=box))

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
            self.add("annotation_invalid", self.name, f"the file_name {file[:80]!r} is no path inside {self.folder}")
            return
        path = (PurePosixPath(self.folder) / relative).as_posix()
        for other in (self.images.get(identifier), self.missing.get(identifier)):
            if other:
                self.add("duplicate_id", path, f"the id {identifier!r} is of {other} and of {path}")
                self.add("duplicate_id", other, f"the id {identifier!r} is of {other} and of {path}")
        if path in self.sizes:
            self.add("duplicate_id", path, f"{path} is listed twice")
        self.sizes[path] = entry.get("width"), entry.get("height")
        (self.images if path in on_disk else self.missing)[identifier] = path
        if path not in on_disk:
            self.add("missing_image", path, f"image {identifier!r} is {path}, which is not there")

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
        """Compare the annotated sizes with the images', as EXIF turns them."""
        for path, size in self.sizes.items():
            found = facts[path].shown if path in facts else (0, 0)
            if found[0] and size != found:
                turned = ", turned by EXIF" if facts[path].orientation != 1 else ""
                sentence = (
                    f"it is annotated as {size[0]!r} x {size[1]!r} pixels and has {found[0]} x {found[1]}{turned}"
                )
                self.add("size_mismatch", path, sentence[:300])

    def read_annotations(self, entries: Entries, facts: Mapping[str, Facts]) -> Counter[str]:
        """Read the annotations; returns the number of objects of each class."""
        counts = Counter(dict.fromkeys(self.classes.values(), 0))
        seen: set[int | str] = set()
        for section, entry in entries:
            if section != "annotations":
                continue
            owner = entry.get("image_id") if isinstance(entry, dict) else None
            if not is_id(owner) or owner not in self.images:
                if not is_id(owner) or owner not in self.missing:
                    self.add("annotation_invalid", self.name, f"an annotation is of no listed image: {brief(entry)}")
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


def is_id(value: Any) -> bool:
    """Whether it can be an id."""
    return isinstance(value, int | str) and not isinstance(value, bool)

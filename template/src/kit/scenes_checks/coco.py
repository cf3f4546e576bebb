"""Check a folder with COCO annotation files; the reader, which refuses the first fault, is `formats/coco.py`."""

import json
from pathlib import Path
from typing import Any

from src.kit.checks import Entry, Facts, Source
from src.kit.scenes import find_coco_splits, list_images, stream
from src.kit.scenes_checks.coco_file import CocoFile, is_id

BROKEN = (ValueError, OSError, RecursionError)  # a number of a million digits is a plain ValueError


class CocoFolder(Source):
    """`coco_folder`, `coco2017` and `digit_scenes`."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        splits = find_coco_splits(root)
        folders = {folder for _, folder, _ in splits.values() if folder.is_dir()}
        on_disk = dict.fromkeys(self.relative(path) for folder in sorted(folders) for path in list_images(folder))
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

    def check(self, facts: dict[str, Facts]) -> None:
        """Read every annotation."""
        for file in self.files:
            file.check_sizes(facts)
            if not file.unreadable:
                self.counts[file.split] = file.read_annotations(stream(self.root / file.name), facts)
                mapped = file.class_maps and self.task == "segmentation"  # whose classes of pixels do instead
                for kind, sentence in file.outlines.faults("" if mapped else self.task):
                    file.add(kind, file.split, sentence)
            self.findings += file.findings
        for entry in self.entries:
            if not entry.split:
                self.add("unlabelled", entry.path, "No annotation file lists it.")
        self.check_balance()

    def rewrite(self, gone: set[str]) -> dict[str, bytes]:
        """The annotation files with a fault, less what is in `gone` and what belongs to no image."""
        changed = {}
        for file in self.files:
            if not file.unreadable and gone & {file.name, *file.images.values(), *file.missing.values()}:
                content = json.loads((self.root / file.name).read_text("utf-8-sig"))
                changed[file.name] = json.dumps(without(content, file, gone)).encode()
        return changed


def without(content: dict[str, Any], file: CocoFile, gone: set[str]) -> dict[str, Any]:
    """An annotation file's content, less the images in `gone` and whatever belongs to no image that stays."""
    kept = {identifier for identifier, path in file.images.items() if path not in gone}
    parts = {section: content.get(section, []) for section in ("images", "annotations")}
    for section, key in (("images", "id"), ("annotations", "image_id")):
        entries = parts[section] if isinstance(parts[section], list) else []
        valid = (entry for entry in entries if isinstance(entry, dict) and is_id(entry.get(key)))
        parts[section] = [entry for entry in valid if entry[key] in kept]
    return {**content, **parts}

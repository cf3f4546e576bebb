"""Check class folders: root/<class>/* or root/{train,val,test}/<class>/*."""

from pathlib import Path

from src.kit.checks.files import Entry, Source
from src.kit.checks.images import Facts
from src.kit.loading import SUFFIXES, find_splits, scan


class ClassFolders(Source):
    """`image_folder` and `imagenet`."""

    unit = "images"

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        splits = find_splits(root)
        for split, folder in splits.items():
            name = split if len(splits) > 1 or folder != root else ""
            found = scan(folder)
            for label, paths in found.items():
                self.entries += [Entry(self.relative(path), name, label) for path in paths]
                self.counts[name][label] = len(paths)
            if split == "train":
                self.classes = tuple(found)
                if len(found) < 2:
                    self.add("structure", name or ".", f"It has images in {len(found)} class folders; 2 are needed.")
            self.look_beside(folder, set(found))
            for label in sorted(set(found) - set(self.classes)):
                self.add("class_only_here", self.relative(folder / label), f"The training split has no class {label}.")

    def look_beside(self, folder: Path, classes: set[str]) -> None:
        """Report what lies next to the class folders, and what in them is no image."""
        for child in sorted(folder.iterdir()):
            if child.name.startswith("."):
                continue
            if child.is_dir():
                self.add_strangers(child)
                if child.name not in classes:
                    self.add("empty_class", self.relative(child), "The folder has no image, so it is no class.")
            elif child.name.lower().endswith(SUFFIXES):
                self.add("no_class", self.relative(child), "It is in no class folder, so it is not read.")

    def check(self, facts: dict[str, Facts]) -> None:
        """Compare the sizes of the classes."""
        self.check_balance()

"""What ImageNet's archives hold: photos named as the publisher names them, and the development kit's labels."""

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from src.kit.config import UserError

Images = Iterator[tuple[str, str, int, IO[bytes]]]  # WordNet id, name, bytes, content
TRAIN_IMAGE = re.compile(r"n\d{8}_\d+\.JPEG")
VAL_IMAGE = re.compile(r"ILSVRC2012_val_\d{8}\.JPEG")


def read_devkit(archive: Path) -> tuple[dict[str, str], list[str]]:
    """The synonyms of each WordNet id that is a class, and the WordNet id of each validation image, in their order."""
    from scipy.io import loadmat  # a MAT-file of version 5: plain arrays, nothing is unpickled

    with tarfile.open(archive) as packed:
        files = {Path(member.name).name: member for member in packed if member.isreg()}
        synsets, truth = (
            packed.extractfile(files[name]) for name in ("meta.mat", "ILSVRC2012_validation_ground_truth.txt")
        )
        assert synsets and truth
        rows = loadmat(synsets, squeeze_me=True)["synsets"]
        leaves = {int(row["ILSVRC2012_ID"]): row for row in rows if row["num_children"] == 0}
        labels = [str(leaves[int(line)]["WNID"]) for line in truth.read().split()]
    return {str(row["WNID"]): str(row["words"]) for row in leaves.values()}, labels


def train_images(archive: Path) -> Images:
    """The images of the tar of tars."""
    with tarfile.open(archive, "r:") as outer:
        for member in outer:
            content = outer.extractfile(member)
            if not re.fullmatch(r"n\d{8}\.tar", member.name) or content is None:
                raise refusal(archive, member.name)
            with tarfile.open(fileobj=content, mode="r:") as inner:
                for name, size, image in regular(inner, TRAIN_IMAGE, archive):
                    yield member.name[:9], name, size, image


def val_images(archive: Path, labels: list[str]) -> Images:
    """The same of the validation archive, whose images are numbered from 1."""
    with tarfile.open(archive, "r:") as packed:
        for name, size, image in regular(packed, VAL_IMAGE, archive):
            number = int(name[15:23])
            if not 1 <= number <= len(labels):
                raise refusal(archive, name)
            yield labels[number - 1], name, size, image


def regular(packed: tarfile.TarFile, pattern: re.Pattern[str], archive: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    """The images of a tar; anything else but a folder is refused, so that nothing can leave the target."""
    for member in packed:
        if member.isdir():
            continue
        content = packed.extractfile(member) if member.isreg() and not member.issparse() else None
        name = member.name.removeprefix("./")
        if not pattern.fullmatch(name) or content is None:
            raise refusal(archive, member.name)
        yield name, member.size, content


def refusal(archive: Path, name: str) -> UserError:
    """The error for an archive with something in it that ImageNet's have not."""
    return UserError(f"{archive} was not unpacked, since it holds {name!r}: get it from its publisher.")

"""Turn ImageNet's three archives into train/<wnid>/*.JPEG, val/<wnid>/*.JPEG and synsets.txt.

An interrupted run continues where it stopped; `train` and `val` appear only once they are complete.
"""

import os
import re
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from src.kit.catalog.specs import DatasetSpec, PublishedFile
from src.kit.config import UserError

SYNSETS = "synsets.txt"  # one line per class: WordNet id, space, synonyms
TRAIN_IMAGE = re.compile(r"n\d{8}_\d+\.JPEG")
VAL_IMAGE = re.compile(r"ILSVRC2012_val_\d{8}\.JPEG")

Images = Iterator[tuple[str, str, int, IO[bytes]]]  # WordNet id, file name, bytes, content


def prepare_imagenet(root: Path, spec: DatasetSpec) -> Path:
    """Unpack what is missing below `root` and return it. The archives stay, and may be deleted afterwards.

    Raises:
        UserError: an archive is missing (the message says how to get it), damaged, or holds other files.
    """
    missing = [file for file in spec.files if not file.is_complete(root)]
    devkit = next(file for file in spec.files if file.target == SYNSETS)
    needed = missing if not missing or devkit in missing else [*missing, devkit]
    absent = [file.archive for file in needed if not (root / file.archive).is_file()]
    if absent:
        raise UserError(
            f"ImageNet-1K needs a login: register at {spec.homepage} (free for {spec.licence}), "
            f"download {', '.join(absent)} there, put {'it' if len(absent) == 1 else 'them'} into {root}, "
            f"and run this command again; unpacking takes {spec.unpacked / 1e9:.0f} GB in addition to the archives."
        )
    if not missing:
        print(f"{root} is already there.")
        return root
    for file in needed:
        verify(root, file)
    try:
        synsets, labels = read_devkit(root / devkit.archive)
        for file in missing:
            if file.target == "train":
                unpack(root, file, train_images(root / file.archive), synsets, spec.splits["train"])
            elif file.target == "val":
                unpack(root, file, val_images(root / file.archive, labels), synsets, spec.splits["test"])
    except (tarfile.TarError, EOFError) as error:
        raise UserError(f"An archive in {root} is damaged ({error}): download it again.") from error
    write_atomically(root / SYNSETS, "".join(f"{wnid} {words}\n" for wnid, words in sorted(synsets.items())).encode())
    return root


def verify(root: Path, file: PublishedFile) -> None:
    """Refuse an archive whose checksum differs from its publisher's."""
    from src.kit.download import digest

    path = root / file.archive
    print(f"Verifying {path} ({path.stat().st_size / 1e9:.1f} GB)", flush=True)
    checksum = digest(path, file.checksum)
    if checksum != file.checksum:
        raise UserError(
            f"{path} has the checksum {checksum} and not its publisher's {file.checksum}: download it again."
        )


def unpack(root: Path, file: PublishedFile, images: Images, synsets: Iterable[str], expected: int) -> None:
    """Write the images into `<target>.unfinished`, skipping those that exist, and rename it at the end."""
    unfinished = root / f"{file.target}.unfinished"
    counts = dict.fromkeys(synsets, 0)
    for wnid, name, size, content in images:
        if wnid not in counts:
            raise refusal(root / file.archive, name)
        counts[wnid] += 1
        path = unfinished / wnid / name
        if not path.is_file() or path.stat().st_size != size:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content.read())
        if sum(counts.values()) % 10_000 == 0:
            print(f"{file.target}: {sum(counts.values()):,} images", flush=True)
    if sum(counts.values()) != expected:
        raise UserError(
            f"{root / file.archive} has {sum(counts.values())} images and should have {expected}: download it again."
        )
    os.replace(unfinished, root / file.target)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that appears only once it is complete."""
    temporary = path.with_name(f".{path.name}")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def read_devkit(archive: Path) -> tuple[dict[str, str], list[str]]:
    """Return the synonyms of each class by WordNet id, and the WordNet id of each validation image, in order."""
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
    """Yield the images of the tar of tars, one inner tar per class."""
    with tarfile.open(archive, "r:") as outer:
        for member in outer:
            content = outer.extractfile(member)
            if not re.fullmatch(r"n\d{8}\.tar", member.name) or content is None:
                raise refusal(archive, member.name)
            with tarfile.open(fileobj=content, mode="r:") as inner:
                for name, size, image in image_files(inner, TRAIN_IMAGE, archive):
                    yield member.name[:9], name, size, image


def val_images(archive: Path, labels: list[str]) -> Images:
    """Yield the images of the validation archive, which are numbered from 1."""
    with tarfile.open(archive, "r:") as packed:
        for name, size, image in image_files(packed, VAL_IMAGE, archive):
            number = int(name[15:23])
            if not 1 <= number <= len(labels):
                raise refusal(archive, name)
            yield labels[number - 1], name, size, image


def image_files(
    packed: tarfile.TarFile, pattern: re.Pattern[str], archive: Path
) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Yield name, bytes and content of a tar's images; skip folders, refuse all else: nothing may leave the target."""
    for member in packed:
        if member.isdir():
            continue
        content = packed.extractfile(member) if member.isreg() and not member.issparse() else None
        name = member.name.removeprefix("./")
        if not pattern.fullmatch(name) or content is None:
            raise refusal(archive, member.name)
        yield name, member.size, content


def refusal(archive: Path, name: str) -> UserError:
    """Return the error for an archive with unexpected content."""
    return UserError(f"{archive} was not unpacked, since it holds {name!r}: get it from its publisher.")

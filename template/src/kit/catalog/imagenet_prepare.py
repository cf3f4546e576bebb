"""Turn ImageNet's archives into train/<wnid>/*.JPEG, val/<wnid>/*.JPEG and synsets.txt.

An interrupted run goes on where it stopped; `train` and `val` appear when they are complete, and never before.
"""

import os
import tarfile
from collections.abc import Iterable
from pathlib import Path

from src.kit.catalog.imagenet_archives import Images, read_devkit, refusal, train_images, val_images
from src.kit.catalog.spec import Part, Spec
from src.kit.config import UserError

SYNSETS = "synsets.txt"  # one line a class: WordNet id, space, synonyms


def prepare(root: Path, spec: Spec) -> Path:
    """Unpack whatever is missing below `root` and return it; the archives stay, and may then be deleted.

    Raises:
        UserError: an archive is missing (with the instructions for getting it), damaged, or holds other files.
    """
    missing = [part for part in spec.files if not part.is_whole(root)]
    devkit = next(part for part in spec.files if part.target == SYNSETS)
    needed = missing if not missing or devkit in missing else [*missing, devkit]
    absent = [part.archive for part in needed if not (root / part.archive).is_file()]
    if absent:
        raise UserError(
            f"ImageNet-1K cannot be fetched without a login: register at {spec.homepage} (free for {spec.licence}), "
            f"download {', '.join(absent)} there, put {'it' if len(absent) == 1 else 'them'} into {root}, "
            f"and run this command again; preparing takes {spec.unpacked / 1e9:.0f} GB beside the archives."
        )
    if not missing:
        print(f"{root} is already there.")
        return root
    for part in needed:
        verify(root, part)
    try:
        synsets, labels = read_devkit(root / devkit.archive)
        for part in missing:
            if part.target == "train":
                unpack(root, part, train_images(root / part.archive), synsets, spec.splits["train"])
            elif part.target == "val":
                unpack(root, part, val_images(root / part.archive, labels), synsets, spec.splits["test"])
    except (tarfile.TarError, EOFError) as error:
        raise UserError(f"An archive in {root} is damaged ({error}): download it again.") from error
    write_whole(root / SYNSETS, "".join(f"{wnid} {words}\n" for wnid, words in sorted(synsets.items())).encode())
    return root


def verify(root: Path, part: Part) -> None:
    """Refuse an archive with another checksum than its publisher's."""
    from src.kit.download import digest

    path = root / part.archive
    print(f"Verifying {path} ({path.stat().st_size / 1e9:.1f} GB)", flush=True)
    found = digest(path, part.checksum)
    if found != part.checksum:
        raise UserError(f"{path} has the checksum {found} and not its publisher's {part.checksum}: download it again.")


def unpack(root: Path, part: Part, images: Images, synsets: Iterable[str], expected: int) -> None:
    """Write the images into `<target>.unfinished`, passing over those that are there, and rename it at the end."""
    unfinished = root / f"{part.target}.unfinished"
    counts = dict.fromkeys(synsets, 0)
    for wnid, name, size, content in images:
        if wnid not in counts:
            raise refusal(root / part.archive, name)
        counts[wnid] += 1
        path = unfinished / wnid / name
        if not path.is_file() or path.stat().st_size != size:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, content.read())
        if sum(counts.values()) % 10_000 == 0:
            print(f"{part.target}: {sum(counts.values()):,} images", flush=True)
    if sum(counts.values()) != expected:
        raise UserError(
            f"{root / part.archive} has {sum(counts.values())} images and should have {expected}: download it again."
        )
    os.replace(unfinished, root / part.target)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that exists only once it is complete."""
    temporary = path.with_name(f".{path.name}")
    temporary.write_bytes(content)
    os.replace(temporary, path)

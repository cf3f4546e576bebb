"""Write a split as shards: plain tars in WebDataset's layout, a table of where each sample lies, and an index."""

import io
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from src.kit.config import UserError
from src.kit.download import digest
from src.kit.loading import FileImages, Images, Split
from src.kit.shards.index import BLOCK, INDEX, TABLE, File, Index, dump_table
from src.kit.shards.read import ShardImages

SHA256 = "sha256:"


def write_split(
    split: Split, name: str, folder: Path, shard_bytes: int, order: np.ndarray, advance: Callable[[], None]
) -> Index:
    """Write the samples of `order` into `folder`, in shards of at most `shard_bytes` where one sample fits into that.

    Each sample is two files, `<number>.<suffix of its format>` and `<number>.cls` with its class number as text.

    Args:
        name: the split's, which its files' names begin with.
        advance: called after each sample.
    """
    folder.mkdir(parents=True)
    table = np.zeros(len(order), TABLE)
    shards: list[File] = []
    first = 0
    while first < len(order):
        path = folder / f"{name}-{len(shards):06d}.tar"
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
            for place in range(first, len(order)):
                content, suffix = encode(split.images, int(order[place]))
                # two headers, the class, and the two empty blocks at the end
                grown = tar.offset + padded(len(content), BLOCK) + 5 * BLOCK
                if place > first and padded(grown, tarfile.RECORDSIZE) > shard_bytes:
                    break
                target = int(split.targets[order[place]])
                table[place] = (tar.offset // BLOCK + 1, len(content), zlib.crc32(content), target)
                add(tar, f"{place:09d}{suffix}", content)
                add(tar, f"{place:09d}.cls", str(target).encode())
                advance()
            else:
                place = len(order)
        shards.append(describe(path, place - first))
        first = place
    path = folder / f"{name}-samples.npy"
    path.write_bytes(dump_table(table))
    index = Index(split.classes, split.flippable, split.images.shape[2], describe(path, len(order)), tuple(shards))
    (folder / INDEX).write_text(index.dump(), "utf-8")
    return index


def encode(images: Images, index: int) -> tuple[bytes, str]:
    """An image's file as it is, or an image from memory as a PNG; and the suffix of its format."""
    if isinstance(images, FileImages):
        path = images.paths[index]
        try:
            return path.read_bytes(), path.suffix.lower()
        except OSError as error:
            raise UserError(f"Cannot read {path}: {error.strerror}.") from error
    if isinstance(images, ShardImages):
        [(_, name, content)] = images.files(np.array([index]))
        return content, Path(name).suffix
    array = images.get(np.array([index]))[0]
    buffer = io.BytesIO()
    Image.fromarray(array[..., 0] if array.shape[2] == 1 else array).save(buffer, "png")
    return buffer.getvalue(), ".png"


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Append a file, without time or owner: the same samples give the same bytes."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def padded(size: int, unit: int) -> int:
    """`size`, rounded up to whole units."""
    return -(-size // unit) * unit


def describe(path: Path, samples: int) -> File:
    """The index's entry of a file."""
    return File(path.name, path.stat().st_size, digest(path, SHA256).removeprefix(SHA256), samples)

"""Write a split as shards: plain tars in WebDataset's layout, a table with the start of each sample, and an index."""

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
from src.kit.shards.read import BLOCK, INDEX, TABLE, Index, ShardFile, ShardImages, table_to_bytes

SHA256 = "sha256:"


def write_shards(
    split: Split, name: str, folder: Path, shard_bytes: int, order: np.ndarray, advance: Callable[[], None]
) -> Index:
    """Write the samples of `order` into `folder`, in shards of at most `shard_bytes` unless a single sample is larger.

    Each sample is two files, `<number>.<suffix of its format>` and `<number>.cls` with its class number as text.

    Args:
        name: the split's, with which its files' names begin.
        advance: called after each sample.
    """
    folder.mkdir(parents=True)
    table = np.zeros(len(order), TABLE)
    shards: list[ShardFile] = []
    first = 0
    while first < len(order):
        path = folder / f"{name}-{len(shards):06d}.tar"
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
            for place in range(first, len(order)):
                content, suffix = encode_image(split.images, int(order[place]))
                # two headers, the class, and the two empty blocks at the end
                grown = tar.offset + padded(len(content), BLOCK) + 5 * BLOCK
                if place > first and padded(grown, tarfile.RECORDSIZE) > shard_bytes:
                    break
                target = int(split.targets[order[place]])
                table[place] = (tar.offset // BLOCK + 1, len(content), zlib.crc32(content), target)
                add_file(tar, f"{place:09d}{suffix}", content)
                add_file(tar, f"{place:09d}.cls", str(target).encode())
                advance()
            else:
                place = len(order)
        shards.append(describe_file(path, place - first))
        first = place
    path = folder / f"{name}-samples.npy"
    path.write_bytes(table_to_bytes(table))
    index = Index(split.classes, split.flippable, split.images.shape[2], describe_file(path, len(order)), tuple(shards))
    (folder / INDEX).write_text(index.to_json(), "utf-8")
    return index


def encode_image(images: Images, index: int) -> tuple[bytes, str]:
    """Return an image's file as it is, or an image from memory as a PNG, and the suffix of its format."""
    if isinstance(images, FileImages):
        path = images.paths[index]
        try:
            return path.read_bytes(), path.suffix.lower()
        except OSError as error:
            raise UserError(f"Cannot read {path}: {error.strerror}.") from error
    if isinstance(images, ShardImages):
        [(_, name, content)] = images.read_files(np.array([index]))
        return content, Path(name).suffix
    array = images.get(np.array([index]))[0]
    buffer = io.BytesIO()
    Image.fromarray(array[..., 0] if array.shape[2] == 1 else array).save(buffer, "png")
    return buffer.getvalue(), ".png"


def add_file(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Append a file without time and owner, so that the same samples give the same bytes."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def padded(size: int, unit: int) -> int:
    """Round `size` up to whole units."""
    return -(-size // unit) * unit


def describe_file(path: Path, samples: int) -> ShardFile:
    """Make the index's entry for a file."""
    return ShardFile(path.name, path.stat().st_size, digest(path, SHA256).removeprefix(SHA256), samples)

"""Read shards: their index, the table of their samples, and the images in the tars.

index.json names a split's shards; the table says where each sample starts in its shard, so samples can be read in any
order."""

import io
import json
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

import numpy as np
from PIL import Image

from src.kit.config import UserError
from src.kit.download import digest
from src.kit.loading import (
    PLAIN,
    FileImages,
    Images,
    Reading,
    Split,
    count_channels,
    decode,
    read_settings,
    reading_of,
    to_planes,
)

INDEX = "index.json"
SHA256_PREFIX = "sha256:"
FORMAT = 1
BLOCK = 512  # bytes of a tar's header, and what everything in it is padded to
# one row a sample, shard after shard; `block` counts from the start of its shard to the image's first byte
TABLE = np.dtype([("block", "<u4"), ("size", "<u4"), ("crc32", "<u4"), ("target", "<i4")])
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
SHA256 = re.compile(r"[0-9a-f]{64}")
WINDOW = 4  # shards whose samples are mixed: a process reads this many at a time, and fetches as many ahead


@dataclass(frozen=True)
class ShardFile:
    """A file next to index.json: a shard, or the table of samples."""

    name: str
    bytes: int
    sha256: str
    samples: int

    def __post_init__(self) -> None:
        whole = [value for value in (self.bytes, self.samples) if type(value) is int and value > 0]
        if len(whole) < 2 or not FILE_NAME.fullmatch(self.name) or not SHA256.fullmatch(self.sha256):
            raise ValueError(f"{self.name!r} of {self.bytes} bytes is no entry of a shard")


@dataclass(frozen=True)
class Index:
    """The shards of one split and what their samples have in common."""

    classes: tuple[str, ...]
    flippable: bool
    channels: int
    table: ShardFile
    shards: tuple[ShardFile, ...]
    reading: Reading | None = None  # how the files were read when they were written; None in older indexes

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise ValueError(f"{self.channels} channels, which must be 1 or 3")
        if self.table.samples != sum(shard.samples for shard in self.shards):
            raise ValueError(f"a table of {self.table.samples} samples, which the shards do not add up to")

    def starts(self) -> np.ndarray:
        """int64 (shards + 1,): the number of each shard's first sample, and of all samples."""
        return np.cumsum([0, *(shard.samples for shard in self.shards)], dtype=np.int64)

    def to_json(self) -> str:
        """The content of index.json."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1)


def parse_index(text: bytes, source: str) -> Index:
    """Parse the content of index.json, which came from `source`.

    Raises:
        UserError: names `source` if the content is no index or could lead out of its folder.
    """
    try:
        keys = json.loads(text)
        if keys.pop("format") != FORMAT:
            raise ValueError(f"not of format {FORMAT}")
        keys["classes"] = tuple(str(name) for name in keys["classes"])
        keys["table"] = ShardFile(**keys["table"])
        keys["shards"] = tuple(ShardFile(**entry) for entry in keys["shards"])
        if keys.get("reading") is not None:
            keys["reading"] = read_settings(keys["reading"])
        return Index(**keys)
    except (UserError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{source} is no index of shards ({type(error).__name__}: {error}): write them with scripts/make_shards.py."
        ) from error


def read_table(path: Path, index: Index) -> np.ndarray:
    """Read the `TABLE` rows (N,) of the index's N samples; nothing is unpickled.

    Raises:
        UserError: the table is missing, damaged or belongs to other shards.
    """
    try:
        # memory-mapped: all processes share one copy, and a damaged header can't make NumPy allocate gigabytes
        table: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        if table.dtype != TABLE or table.shape != (index.table.samples,):
            raise ValueError(f"{table.dtype} {table.shape}")
        ends = table["block"].astype(np.int64) * BLOCK + table["size"]
        counts, sizes = zip(*((shard.samples, shard.bytes) for shard in index.shards), strict=True)
        if table["block"].min() < 1 or (ends > np.repeat(sizes, counts)).any():
            raise ValueError("samples beyond the end of their shard")
        if not 0 <= table["target"].min() <= table["target"].max() < len(index.classes):
            raise ValueError(f"classes beyond the {len(index.classes)} of the index")
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} is not the table of these shards ({error}): copy or write them again.") from error
    return table


def table_to_bytes(table: np.ndarray) -> bytes:
    """The content of the table's file."""
    buffer = io.BytesIO()
    np.save(buffer, table, allow_pickle=False)
    return buffer.getvalue()


class Source(Protocol):
    """The shards of one split."""

    index: Index
    table: np.ndarray  # `TABLE` rows (N,)

    def open(self, shard: int) -> BinaryIO:
        """Open a shard for random access. Thread-safe."""
        ...

    def expect(self, shards: list[int]) -> None:
        """Prepare for reading these shards in this order."""
        ...


class ShardFolder:
    """Shards in a local folder."""

    def __init__(self, folder: Path) -> None:
        if not (folder / INDEX).is_file():
            raise UserError(
                f"{folder} holds no shards: write them with `python scripts/make_shards.py data=... --out "
                f"{folder.parent}`, or set data.root to their folder or URL."
            )
        self.folder = folder
        self.index = parse_index((folder / INDEX).read_bytes(), str(folder / INDEX))
        self.table = read_table(folder / self.index.table.name, self.index)
        missing = {shard.name for shard in self.index.shards} - set(os.listdir(folder))
        if missing:
            raise UserError(f"{folder} lacks {len(missing)} of its shards, such as {min(missing)}: copy them there.")

    def open(self, shard: int) -> BinaryIO:
        """Open the shard's file."""
        return (self.folder / self.index.shards[shard].name).open("rb", buffering=0)

    def expect(self, shards: list[int]) -> None:
        """Do nothing: the operating system reads ahead."""


class ShardImages:
    """Images that are read from their shard and decoded on demand, image_size x image_size.

    Only the table is in memory, 16 bytes per sample.
    """

    in_memory = False

    def __init__(
        self, source: Source, image_size: int, numbers: np.ndarray | None = None, reading: Reading = PLAIN
    ) -> None:
        """`numbers` int64 (N,) selects samples of the source; None selects all."""
        self.source, self.image_size, self.reading = source, image_size, reading
        self.written_reading = source.index.reading  # has the range of the training split: no shard is fetched for it
        self.numbers = np.arange(len(source.table)) if numbers is None else numbers
        self.starts = source.index.starts()
        bands = source.index.channels if reading["bands"] is None else count_channels(reading)
        self.shape = (image_size, image_size, bands)

    def __len__(self) -> int:
        return len(self.numbers)

    def targets(self) -> np.ndarray:
        """int64 (N,) class numbers."""
        return self.source.table["target"][self.numbers].astype(np.int64)

    def take(self, indices: np.ndarray) -> "ShardImages":
        """The images at these indices, in this order."""
        return ShardImages(self.source, self.image_size, self.numbers[indices], self.reading)

    def read_as(self, reading: Reading) -> "ShardImages":
        """The same images, read in other bands, range or on another background."""
        return ShardImages(self.source, self.image_size, self.numbers, reading)

    def sources(self, indices: np.ndarray) -> list[bytes]:
        """The contents of these images' files."""
        return [content for _, _, content in self.read_files(indices)]

    def get(self, indices: np.ndarray) -> np.ndarray:
        """uint8 (B, H, W, C); a shard that is missing or damaged is a `UserError` that names it."""
        planes = np.empty((len(indices), count_channels(self.reading), self.image_size, self.image_size), np.uint8)
        for position, name, content in self.read_files(indices):
            try:
                to_planes(decode(content, self.image_size, self.reading), planes[position])
            except UserError as error:
                raise UserError(f"{name}: {error}") from error
        return planes[:, : self.shape[2]].transpose(0, 2, 3, 1)  # the three channels of a grey image are the same

    def read_files(self, indices: np.ndarray) -> Iterator[tuple[int, str, bytes]]:
        """Yield (position in `indices`, "<shard>/<file>", the file's bytes) of each image, shard by shard.

        Raises:
            UserError: a sample whose checksum differs.
        """
        numbers = self.numbers[indices]
        shards = self.shards_of(numbers)
        order = np.argsort(numbers)  # opens each shard once and reads it from front to back
        for shard in np.unique(shards):
            entry = self.source.index.shards[shard]
            with self.source.open(int(shard)) as file:
                for position in order[shards[order] == shard]:
                    row = self.source.table[numbers[position]]
                    file.seek((int(row["block"]) - 1) * BLOCK)
                    member = file.read(BLOCK + int(row["size"]))
                    content = member[BLOCK:]
                    if zlib.crc32(content) != row["crc32"]:
                        raise UserError(
                            f"Sample {numbers[position] - self.starts[shard]} of {file.name} is damaged (its checksum "
                            "differs): delete that file, and fetch or copy it again."
                        )
                    name = tarfile.TarInfo.frombuf(member[:BLOCK], "ascii", "strict").name
                    yield int(position), f"{entry.name}/{PurePosixPath(name).name}", content

    def shards_of(self, numbers: np.ndarray) -> np.ndarray:
        """The shard of each sample: int64 (N,)."""
        return np.searchsorted(self.starts, numbers, "right") - 1

    def epoch_order(self, rng: np.random.Generator) -> np.ndarray:
        """Shuffle all indices, int64 (N,): shards in random order, samples among `WINDOW` shards at a time."""
        shards = self.shards_of(self.numbers)
        windows = rng.permutation(len(self.source.index.shards)) // WINDOW
        return np.lexsort((rng.random(len(self), np.float32), windows[shards]))

    def expect(self, order: np.ndarray) -> None:
        """Prepare for reading these indices in this order: their shards may be fetched ahead."""
        shards = self.shards_of(self.numbers[order])
        _, first = np.unique(shards, return_index=True)
        self.source.expect(shards[np.sort(first)].tolist())


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
            for number in range(first, len(order)):
                content, suffix = encode_image(split.images, int(order[number]))
                # two headers, the class, and the two empty blocks at the end
                grown = tar.offset + padded(len(content), BLOCK) + 5 * BLOCK
                if number > first and padded(grown, tarfile.RECORDSIZE) > shard_bytes:
                    break
                target = int(split.targets[order[number]])
                table[number] = (tar.offset // BLOCK + 1, len(content), zlib.crc32(content), target)
                add_file(tar, f"{number:09d}{suffix}", content)
                add_file(tar, f"{number:09d}.cls", str(target).encode())
                advance()
            else:
                number = len(order)
        shards.append(describe_file(path, number - first))
        first = number
    path = folder / f"{name}-samples.npy"
    path.write_bytes(table_to_bytes(table))
    channels = 1 if split.images.shape[2] == 1 else 3  # `data.bands` chooses others when the files are read
    entries = describe_file(path, len(order)), tuple(shards)
    index = Index(split.classes, split.flippable, channels, *entries, reading_of(split) or PLAIN)
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
    return ShardFile(path.name, path.stat().st_size, digest(path, SHA256_PREFIX).removeprefix(SHA256_PREFIX), samples)

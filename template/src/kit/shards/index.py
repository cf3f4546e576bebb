"""What lies in the shards of one split: index.json names them, and a table says where each sample lies."""

import io
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from src.kit.config import UserError

INDEX = "index.json"
FORMAT = 1
BLOCK = 512  # bytes of a tar's header, and what everything in it is padded to
# one row a sample, shard after shard; `block` counts from the start of its shard to the image's first byte
TABLE = np.dtype([("block", "<u4"), ("size", "<u4"), ("crc32", "<u4"), ("target", "<i4")])
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class File:
    """A file beside index.json: a shard, or the table of samples."""

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
    """The shards of one split, and what their samples are."""

    classes: tuple[str, ...]
    flippable: bool
    channels: int
    table: File
    shards: tuple[File, ...]

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise ValueError(f"{self.channels} channels, which must be 1 or 3")
        if self.table.samples != sum(shard.samples for shard in self.shards):
            raise ValueError(f"a table of {self.table.samples} samples, which the shards do not add up to")

    def starts(self) -> np.ndarray:
        """int64 (shards + 1,): the number of each shard's first sample, and of all samples."""
        return np.cumsum([0, *(shard.samples for shard in self.shards)], dtype=np.int64)

    def dump(self) -> str:
        """The content of index.json."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1)


def parse_index(text: bytes, place: str) -> Index:
    """Read index.json.

    Raises:
        UserError: names `place`, if the content is no index or could lead out of its folder.
    """
    try:
        keys = json.loads(text)
        if keys.pop("format") != FORMAT:
            raise ValueError(f"not of format {FORMAT}")
        keys["classes"] = tuple(str(name) for name in keys["classes"])
        keys["table"] = File(**keys["table"])
        keys["shards"] = tuple(File(**entry) for entry in keys["shards"])
        return Index(**keys)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{place} is no index of shards ({type(error).__name__}: {error}): write them with scripts/make_shards.py."
        ) from error


def read_table(path: Path, index: Index) -> np.ndarray:
    """`TABLE` rows (N,) of the index's N samples; nothing is unpickled.

    Raises:
        UserError: the table is missing, damaged or of other shards.
    """
    try:
        # mapped: the processes of a machine share one copy, and what a damaged header claims is not allocated
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


def dump_table(table: np.ndarray) -> bytes:
    """The content of the table's file."""
    buffer = io.BytesIO()
    np.save(buffer, table, allow_pickle=False)
    return buffer.getvalue()

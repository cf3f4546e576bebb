"""Images in shards, read by their place in the tar and shuffled so that neighbours come from few shards."""

import tarfile
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath

import numpy as np

from src.kit.config import UserError
from src.kit.loading import decode, to_planes
from src.kit.shards.index import BLOCK
from src.kit.shards.sources import WINDOW, Source


class ShardImages:
    """Images that are read from their shard and decoded, `image_size` x `image_size`, each time they are asked for.

    Only the table is in memory, 16 bytes a sample.
    """

    in_memory = False

    def __init__(self, source: Source, image_size: int, numbers: np.ndarray | None = None) -> None:
        """`numbers`: int64 (N,), the samples of the source to show; all of them unless given."""
        self.source, self.image_size = source, image_size
        self.numbers = np.arange(len(source.table)) if numbers is None else numbers
        self.starts = source.index.starts()
        self.shape = (image_size, image_size, source.index.channels)

    def __len__(self) -> int:
        return len(self.numbers)

    def targets(self) -> np.ndarray:
        """int64 (N,) class numbers."""
        return self.source.table["target"][self.numbers].astype(np.int64)

    def take(self, indices: np.ndarray) -> "ShardImages":
        """The images at these indices, in this order."""
        return ShardImages(self.source, self.image_size, self.numbers[indices])

    def get(self, indices: np.ndarray) -> np.ndarray:
        """uint8 (B, H, W, C); a shard that is missing or damaged is a `UserError` that names it."""
        planes = np.empty((len(indices), 3, self.image_size, self.image_size), np.uint8)
        for place, name, content in self.files(indices):
            try:
                to_planes(decode(content, self.image_size), planes[place])
            except UserError as error:
                raise UserError(f"{name}: {error}") from error
        return planes[:, : self.shape[2]].transpose(0, 2, 3, 1)  # the three channels of a grey image are the same

    def files(self, indices: np.ndarray) -> Iterator[tuple[int, str, bytes]]:
        """(place in `indices`, "<shard>/<file>", the file's bytes) of each image, shard by shard.

        Raises:
            UserError: bytes that are not the ones written.
        """
        numbers = self.numbers[indices]
        shards = self.shards(numbers)
        order = np.argsort(numbers)  # so each shard is opened once, and read from front to back
        for shard in np.unique(shards):
            entry = self.source.index.shards[shard]
            with self.source.open(int(shard)) as file:
                for place in order[shards[order] == shard]:
                    row = self.source.table[numbers[place]]
                    file.seek((int(row["block"]) - 1) * BLOCK)
                    member = file.read(BLOCK + int(row["size"]))
                    content = member[BLOCK:]
                    if zlib.crc32(content) != row["crc32"]:
                        raise UserError(
                            f"Sample {numbers[place] - self.starts[shard]} of {file.name} is damaged (its checksum "
                            "differs): delete that file, and fetch or copy it again."
                        )
                    name = tarfile.TarInfo.frombuf(member[:BLOCK], "ascii", "strict").name
                    yield int(place), f"{entry.name}/{PurePosixPath(name).name}", content

    def shards(self, numbers: np.ndarray) -> np.ndarray:
        """int64 (N,): the shard of each of these samples."""
        return np.searchsorted(self.starts, numbers, "right") - 1

    def epoch_order(self, rng: np.random.Generator) -> np.ndarray:
        """int64 (N,): every index once; shards in random order, and samples mixed among `WINDOW` shards in a row."""
        shards = self.shards(self.numbers)
        windows = rng.permutation(len(self.source.index.shards)) // WINDOW
        return np.lexsort((rng.random(len(self), np.float32), windows[shards]))

    def expect(self, order: np.ndarray) -> None:
        """Have the shards of these indices fetched ahead, in the order in which they are first needed."""
        shards = self.shards(self.numbers[order])
        _, first = np.unique(shards, return_index=True)
        self.source.expect(shards[np.sort(first)].tolist())

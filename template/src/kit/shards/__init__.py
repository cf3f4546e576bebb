"""Data sets larger than the disk: sharded tar files on disk or behind HTTP."""

from src.kit.shards.read import ShardImages
from src.kit.shards.sources import open_source
from src.kit.shards.write import write_split

__all__ = ["ShardImages", "open_source", "write_split"]

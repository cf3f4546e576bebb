"""Data sets larger than the disk or with too many files: tar shards in a folder or behind HTTP."""

from src.kit.shards.read import ShardImages
from src.kit.shards.remote import open_source, parse_size
from src.kit.shards.write import write_shards

__all__ = ["ShardImages", "open_source", "parse_size", "write_shards"]

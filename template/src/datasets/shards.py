"""Data larger than the disk: shards that `scripts/make_shards.py` wrote, read from a folder, over HTTP or from S3.

A shard is a plain tar in WebDataset's layout (https://github.com/webdataset/webdataset), which other tools read too. An
index next to it says where each sample starts, so any sample is read without the ones before it.
"""

from typing import Annotated

from src.kit.config import Range, UserError
from src.kit.loading import Split
from src.kit.shards import ShardImages, open_source
from src.kit.splitting import SplitRule


def build(
    split: SplitRule,
    *,
    root: str = "data/shards",
    image_size: Annotated[int, Range(min=1)] = 224,
    shard_cache: str = "data/shard_cache",
    shard_cache_limit: Annotated[int | str, Range(min=1)] = "20GB",
) -> Split:
    """Images (N, image_size, image_size, C), decoded on demand; the splits are those that were written.

    Args:
        root: Folder of the shards, or their URL, which begins with http, https or s3.
        image_size: Height and width in pixels.
        shard_cache: Folder for the shards in use that come from a URL.
        shard_cache_limit: Largest size of this folder in bytes, such as 20GB.
    """
    if split.fold is not None:
        raise UserError("data=shards has the splits that were written and no folds: leave trainer.folds=null.")
    if split.group_pattern is not None:
        raise UserError(
            "data=shards has the splits that were written: give data.group_pattern to scripts/make_shards.py instead."
        )
    source = open_source(root, split.name, shard_cache, shard_cache_limit)
    images = ShardImages(source, image_size)
    return Split(images, images.targets(), source.index.classes, source.index.flippable)

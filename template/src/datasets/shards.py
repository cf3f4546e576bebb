"""Data larger than the disk: shards that `scripts/make_shards.py` wrote, read from a folder or over HTTP.

A shard is a plain tar in WebDataset's layout (https://github.com/webdataset/webdataset), so that other tools read it
too; an index beside it says where each sample lies, so that any sample is read without the ones before it.
"""

from omegaconf import DictConfig

from src.kit.config import UserError
from src.kit.loading import Split
from src.kit.shards import ShardImages, open_source


def load(cfg_data: DictConfig, split: str, seed: int) -> Split:
    """Images (N, image_size, image_size, C), decoded when they are asked for; the splits are the written ones."""
    if cfg_data.fold is not None:
        raise UserError("data=shards has the splits that were written and no folds: leave trainer.folds=null.")
    if cfg_data.group_pattern is not None:
        raise UserError(
            "data=shards has the splits that were written: give data.group_pattern to scripts/make_shards.py instead."
        )
    source = open_source(cfg_data, split)
    images = ShardImages(source, cfg_data.image_size)
    return Split(images, images.targets(), source.index.classes, source.index.flippable)


def download(cfg_data: DictConfig) -> None:
    """Nothing to fetch beforehand: shards behind a URL are fetched while they are needed."""

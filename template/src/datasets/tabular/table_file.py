"""A CSV or Parquet file of your own: `data.root` is the file, `data.target.column` what is to be predicted."""

from pathlib import Path

from omegaconf import DictConfig

from src.kit.tabular import Table, TableSplit, load_table, read_table


def load(cfg_data: DictConfig, split: str, seed: int) -> TableSplit:
    """One split; `val_fraction` and `test_fraction` are taken from the one file there is."""
    return load_table(read, cfg_data, split, seed)


def read(cfg_data: DictConfig) -> Table:
    """The whole file, as `read_table` describes."""
    keys = cfg_data.columns
    return read_table(Path(cfg_data.root).expanduser(), keys.delimiter, keys.drop, keys.categories)


def download(cfg_data: DictConfig) -> None:
    """Nothing to fetch: the file is yours."""

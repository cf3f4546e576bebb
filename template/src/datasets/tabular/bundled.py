"""Tables with classes that scikit-learn ships, so they need no network.

breast_cancer: 569 tumours of 2 classes with 30 measurements; Wolberg et al., 1993, https://archive.ics.uci.edu/dataset/17
wine: 178 wines of 3 growers with 13 measurements; Aeberhard and Forina, 1992, https://archive.ics.uci.edu/dataset/109
"""

import numpy as np
from omegaconf import DictConfig

from src.kit.tabular import Table, TableSplit, load_table


def load(cfg_data: DictConfig, split: str, seed: int) -> TableSplit:
    """One split; `val_fraction` and `test_fraction` are taken from the one table there is."""
    return load_table(read, cfg_data, split, seed)


def read(cfg_data: DictConfig) -> Table:
    """The measurements, and the class in the column `cfg_data.target.column`."""
    from sklearn.datasets import load_breast_cancer, load_wine

    bunch = {"breast_cancer": load_breast_cancer, "wine": load_wine}[cfg_data.name]()
    columns = dict(zip(map(str, bunch.feature_names), bunch.data.T, strict=True))
    classes = np.array([str(name) for name in bunch.target_names], object)
    return Table({**columns, cfg_data.target.column: classes[bunch.target]})


def download(cfg_data: DictConfig) -> None:
    """Nothing to fetch: the tables come with scikit-learn."""

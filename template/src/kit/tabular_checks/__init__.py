"""Checks of tables for `src.kit.checks`: columns, target, equal rows, leaks."""

from omegaconf import DictConfig

from src.kit.checks import Checker
from src.kit.tabular_checks.tables import check_table

__all__ = ["check_table", "find_checker"]


def find_checker(cfg: DictConfig) -> Checker | None:
    """The checker of a table, which is a data set with the key `target`."""
    return check_table if "target" in cfg.data else None

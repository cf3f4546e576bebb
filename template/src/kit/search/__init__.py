"""Hyper-parameter search: an Optuna study whose trials are ordinary runs; killed at any moment, it goes on.

`scripts/search.py` is the command. The study is a SQLite file in the search's folder, next to the runs.
"""

from src.kit.search.space import Dimension, Plan, read_plan
from src.kit.search.study import run_search

__all__ = ["Dimension", "Plan", "read_plan", "run_search"]

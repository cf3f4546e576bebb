"""Train, validation and test splits; folds."""

from src.kit.splitting.iterative import iterative_split
from src.kit.splitting.rule import SplitRule
from src.kit.splitting.splits import group_by, split_off_val, stratified_split

__all__ = ["SplitRule", "group_by", "iterative_split", "split_off_val", "stratified_split"]

"""Train, validation and test splits and cross-validation folds: seeded, stratified, and never splitting a group."""

from src.kit.splitting.rule import SplitRule
from src.kit.splitting.stratify import iterative_split, stratified_split

__all__ = ["SplitRule", "iterative_split", "stratified_split"]

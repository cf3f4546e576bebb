"""Small subsets of data sets, to try things out in seconds."""

from src.kit.mini.create import create_mini_dataset

__all__ = ["create_mini_dataset"]

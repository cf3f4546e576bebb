"""Tools for data sets.

from src.datasets.utils import create_mini_dataset

create_mini_dataset(
    original_dataset="data/images", sample_count=500, validation_split=0.2, output_dir="data/mini"
)
"""

from src.kit.mini import create_mini_dataset

__all__ = ["create_mini_dataset"]

"""The data sets that the project knows: URLs, sizes, checksums, licences."""

from src.kit.catalog.build import (
    SPLITS,
    build_dataset,
    build_split,
    call_with_keys,
    dataset_module,
    download_dataset,
)
from src.kit.catalog.dataset_table import show_info
from src.kit.catalog.imagenet_prepare import SYNSETS, prepare
from src.kit.catalog.selector import STAGES, Selection, auto_select_dataset
from src.kit.catalog.spec import fetch_dataset, read, specs

__all__ = [
    "SPLITS",
    "STAGES",
    "SYNSETS",
    "Selection",
    "auto_select_dataset",
    "build_dataset",
    "build_split",
    "call_with_keys",
    "dataset_module",
    "download_dataset",
    "fetch_dataset",
    "prepare",
    "read",
    "show_info",
    "specs",
]

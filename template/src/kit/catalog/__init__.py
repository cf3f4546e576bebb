"""The data sets that this project knows: build them by name, fetch their files, choose the one that fits a machine."""

from src.kit.catalog.build import (
    SPLITS,
    build_dataset,
    build_split,
    call_with_keys,
    dataset_module,
    download_dataset,
)
from src.kit.catalog.imagenet import SYNSETS, prepare_imagenet
from src.kit.catalog.specs import (
    STAGES,
    DatasetSpec,
    Selection,
    auto_select_dataset,
    dataset_specs,
    fetch_dataset,
    find_spec,
    show_info,
)

__all__ = [
    "SPLITS",
    "STAGES",
    "SYNSETS",
    "DatasetSpec",
    "Selection",
    "auto_select_dataset",
    "build_dataset",
    "build_split",
    "call_with_keys",
    "dataset_module",
    "dataset_specs",
    "download_dataset",
    "fetch_dataset",
    "find_spec",
    "prepare_imagenet",
    "show_info",
]

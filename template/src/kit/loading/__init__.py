"""From image files or arrays to normalised batches: decoding, caching, order of the samples, threads.

A data set returns a `Split` of `ArrayImages` or `FileImages`; `Loader` makes NumPy batches of it for any framework.
"""

from src.kit.inference import MAX_PIXELS, decode, normalize, open_rgb, resize, to_eight_bits, to_planes
from src.kit.loading.cache import DEVICE_SHARE, choose_cache, choose_workers, in_background, keep_decoded, read_all
from src.kit.loading.images import (
    SPLIT_NAMES,
    SUFFIXES,
    ArrayImages,
    FileImages,
    Images,
    MixedImages,
    Split,
    find_images,
    find_splits,
    is_hidden,
    list_images,
    scan_classes,
    walk,
)
from src.kit.loading.loader import (
    Batch,
    BatchLoader,
    Loader,
    build_image_loader,
    image_options,
    margin,
    normalisation,
    order_options,
    plan_epoch,
    refuse_keys,
)

__all__ = [
    "DEVICE_SHARE",
    "MAX_PIXELS",
    "SPLIT_NAMES",
    "SUFFIXES",
    "ArrayImages",
    "Batch",
    "BatchLoader",
    "FileImages",
    "Images",
    "Loader",
    "MixedImages",
    "Split",
    "build_image_loader",
    "choose_cache",
    "choose_workers",
    "decode",
    "find_images",
    "find_splits",
    "image_options",
    "in_background",
    "is_hidden",
    "keep_decoded",
    "list_images",
    "margin",
    "normalisation",
    "normalize",
    "open_rgb",
    "order_options",
    "plan_epoch",
    "read_all",
    "refuse_keys",
    "resize",
    "scan_classes",
    "to_eight_bits",
    "to_planes",
    "walk",
]

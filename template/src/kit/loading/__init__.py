"""From image files or arrays to normalised batches: decoding, caching, order of the samples, threads.

A data set returns a `Split` of `ArrayImages` or `FileImages`; `Loader` makes NumPy batches of it for any framework.
"""

from src.kit.loading.cache import DEVICE_SHARE, choose_cache, keep_decoded, read_all
from src.kit.loading.decoding import MAX_PIXELS, decode, normalize, open_rgb, resize, to_eight_bits, to_planes
from src.kit.loading.images import (
    SUFFIXES,
    ArrayImages,
    FileImages,
    Images,
    MixedImages,
    Split,
    collect,
    find_splits,
    scan,
)
from src.kit.loading.loader import (
    Batch,
    BatchLoader,
    Loader,
    build_image_loader,
    image_options,
    margin,
    normalisation,
    plan_epoch,
)
from src.kit.loading.order import order_options, refuse_keys
from src.kit.loading.prefetch import choose_workers, in_background

__all__ = [
    "DEVICE_SHARE",
    "MAX_PIXELS",
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
    "collect",
    "decode",
    "find_splits",
    "image_options",
    "in_background",
    "keep_decoded",
    "margin",
    "normalisation",
    "normalize",
    "open_rgb",
    "order_options",
    "plan_epoch",
    "read_all",
    "refuse_keys",
    "resize",
    "scan",
    "to_eight_bits",
    "to_planes",
]

"""From files or arrays to normalised batches: decoding, caching, order, threads."""

from src.kit.loading.base import SUFFIXES, ArrayImages, FileImages, Images, Split
from src.kit.loading.cache import DEVICE_SHARE, choose_cache, keep_decoded, read_all
from src.kit.loading.decode import MAX_PIXELS, decode, open_rgb, to_eight_bits
from src.kit.loading.epoch_plan import margin, normalisation, plan_epoch
from src.kit.loading.folders import collect, find_splits, scan
from src.kit.loading.image_loader import build_image_loader, image_options
from src.kit.loading.jpeg import to_planes
from src.kit.loading.loader import Batch, Loader
from src.kit.loading.mixed_images import MixedImages
from src.kit.loading.order import order_options, refuse_keys
from src.kit.loading.prefetch import choose_workers, in_background
from src.kit.loading.transforms import normalize

__all__ = [
    "DEVICE_SHARE",
    "MAX_PIXELS",
    "SUFFIXES",
    "ArrayImages",
    "Batch",
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
    "scan",
    "to_eight_bits",
    "to_planes",
]

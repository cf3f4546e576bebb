"""Use a trained network without a framework: its card, from data to its input, from its outputs to predictions.

card = read_card(Path("outputs/RUN/export"))
batch = preprocess(card, ["photo.jpg"])                        # NumPy and Pillow
outputs = session.run(None, {"images": batch.arrays})[0]       # ONNX Runtime, or a framework
predictions = postprocess(card, outputs, batch.sizes)

`Predictor.open("outputs/RUN").predict(["photo.jpg"])` does all of it. Training prepares its validation data, and
evaluation reads outputs, with the same functions.
"""

from src.kit.inference.batches import Batch, Kind, Place, Size, View, kind_of, postprocess, preprocess, shift, size_of
from src.kit.inference.card import Card, parse_card, read_card
from src.kit.inference.decoding import decode, flatten, normalize, open_rgb, resize, to_channels, to_planes
from src.kit.inference.depth import (
    MAX_PIXELS,
    ORIENTATION,
    PLAIN,
    BandsError,
    Reading,
    count_channels,
    is_deep_png,
    is_tiff,
    measure_range,
    read_settings,
    read_tiff_header,
    resize_bands,
)
from src.kit.inference.drift import Drift, Shift, outcomes, refer
from src.kit.inference.images import check_pixels, existing, softmax
from src.kit.inference.images import describe as describe_class
from src.kit.inference.images import features as image_features
from src.kit.inference.predictor import Ensemble, Predictor, batched, choose_views, fused_outputs

__all__ = [
    "MAX_PIXELS",
    "ORIENTATION",
    "PLAIN",
    "BandsError",
    "Batch",
    "Card",
    "Drift",
    "Ensemble",
    "Kind",
    "Place",
    "Predictor",
    "Reading",
    "Shift",
    "Size",
    "View",
    "batched",
    "check_pixels",
    "choose_views",
    "count_channels",
    "decode",
    "describe_class",
    "existing",
    "flatten",
    "fused_outputs",
    "image_features",
    "is_deep_png",
    "is_tiff",
    "kind_of",
    "measure_range",
    "normalize",
    "open_rgb",
    "outcomes",
    "parse_card",
    "postprocess",
    "preprocess",
    "read_card",
    "read_settings",
    "read_tiff_header",
    "refer",
    "resize",
    "resize_bands",
    "shift",
    "size_of",
    "softmax",
    "to_channels",
    "to_planes",
]

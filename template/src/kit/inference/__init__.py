"""Use a trained network without a framework: its card, from data to its input, from its outputs to predictions.

card = read_card(Path("outputs/RUN/export"))
batch = preprocess(card, ["photo.jpg"])                        # NumPy and Pillow
outputs = session.run(None, {"images": batch.arrays})[0]       # ONNX Runtime, or a framework
predictions = postprocess(card, outputs, batch.sizes)

`Predictor.open("outputs/RUN").predict(["photo.jpg"])` does all of it. Training prepares its validation data, and
evaluation reads outputs, with the same functions.
"""

from src.kit.inference.batches import Batch, Kind, Size, kind_of, postprocess, preprocess, size_of
from src.kit.inference.card import Card, parse_card, read_card
from src.kit.inference.decoding import (
    MAX_PIXELS,
    decode,
    normalize,
    open_rgb,
    resize,
    to_channels,
    to_eight_bits,
    to_planes,
)
from src.kit.inference.images import check_pixels, existing, softmax
from src.kit.inference.images import describe as describe_class
from src.kit.inference.predictor import Predictor

__all__ = [
    "MAX_PIXELS",
    "Batch",
    "Card",
    "Kind",
    "Predictor",
    "Size",
    "check_pixels",
    "decode",
    "describe_class",
    "existing",
    "kind_of",
    "normalize",
    "open_rgb",
    "parse_card",
    "postprocess",
    "preprocess",
    "read_card",
    "resize",
    "size_of",
    "softmax",
    "to_channels",
    "to_eight_bits",
    "to_planes",
]

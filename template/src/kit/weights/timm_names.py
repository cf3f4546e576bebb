"""timm's EfficientNet weights under torchvision's names (timm's ResNets have torchvision's names already)."""

import re

import numpy as np

OUTER = {
    "conv_stem": "features.0.0",
    "bn1": "features.0.1",
    "conv_head": "features.8.0",
    "bn2": "features.8.1",
    "classifier": "classifier.1",
}
# The first stage does not expand its channels, so that its blocks have one convolution less.
FIRST_STAGE = {
    "conv_dw": "0.0",
    "bn1": "0.1",
    "se.conv_reduce": "1.fc1",
    "se.conv_expand": "1.fc2",
    "conv_pw": "2.0",
    "bn2": "2.1",
}
STAGE = {
    "conv_pw": "0.0",
    "bn1": "0.1",
    "conv_dw": "1.0",
    "bn2": "1.1",
    "se.conv_reduce": "2.fc1",
    "se.conv_expand": "2.fc2",
    "conv_pwl": "3.0",
    "bn3": "3.1",
}


def rename(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rename what is timm's EfficientNet, and leave out BatchNorm's batch counters, which inference never reads."""
    arrays = {name: array for name, array in arrays.items() if not name.endswith("num_batches_tracked")}
    if "conv_stem.weight" not in arrays:
        return arrays
    return {_rename(name): array for name, array in arrays.items()}


def _rename(name: str) -> str:
    layer, _, kind = name.rpartition(".")
    block = re.fullmatch(r"blocks\.(\d+)\.(\d+)\.(.+)", layer)
    if not block:
        return f"{OUTER.get(layer, layer)}.{kind}"
    stage, index, part = int(block[1]), block[2], block[3]
    part = (FIRST_STAGE if stage == 0 else STAGE).get(part, part)
    return f"features.{stage + 1}.{index}.block.{part}.{kind}"

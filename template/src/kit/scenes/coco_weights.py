"""torchvision's weights of COCO, fitted to a detector of other classes and channels, as NumPy arrays."""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from src.kit.scenes.coco_format import COCO_CLASSES
from src.kit.weights import adapt_stem

GIVEN_UP = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}  # COCO's numbers without a class
NUMBERS = dict(zip(COCO_CLASSES, (number for number in range(1, 91) if number not in GIVEN_UP), strict=True))
ROWS = 91  # of the published last layers: 0 is the background
BY_CLASS = re.compile(r"classification_head\.cls_logits|roi_heads\..*\.(cls_score|bbox_pred|mask_fcn_logits)\.")
EPSILON = 1e-5  # of batch normalisation
STEM = "backbone.body.conv1.weight"
# name in the published files -> name since; a tower's activations were layers of the same row
RENAMED = (
    (re.compile(r"(.*fpn\.\w+_blocks\.\d)\.(weight|bias)"), lambda found: f"{found[1]}.0.{found[2]}"),
    (re.compile(r"(rpn\.head\.conv)\.(weight|bias)"), lambda found: f"{found[1]}.0.0.{found[2]}"),
    (
        re.compile(r"(head\.\w+_head\.conv)\.(\d)\.(weight|bias)"),
        lambda found: f"{found[1]}.{int(found[2]) // 2}.0.{found[3]}",
    ),
    (
        re.compile(r"(roi_heads\.mask_head)\.mask_fcn(\d)\.(weight|bias)"),
        lambda found: f"{found[1]}.{int(found[2]) - 1}.0.{found[3]}",
    ),
)


def fit_coco_weights(
    weights: Mapping[str, np.ndarray], own: Mapping[str, np.ndarray], class_names: Sequence[str] | None
) -> dict[str, np.ndarray]:
    """All weights of a RetinaNet or a Mask R-CNN on ResNet-50 that starts from torchvision's of COCO.

    Classes that COCO names alike are known at once; other classes keep their values.

    Args:
        weights: the published ones.
        own: the detector's first values, under torchvision's names.
        class_names: of the detector's outputs, without a background.
    """
    found = {rename(name): array for name, array in weights.items() if not name.endswith("num_batches_tracked")}
    first = int("head.classification_head.cls_logits.bias" not in own)  # Mask R-CNN has the background as class 0
    pairs = [(0, 0)][:first]
    pairs += [(k + first, NUMBERS[name]) for k, name in enumerate(class_names or ()) if name in NUMBERS]
    for name in [name for name in found if BY_CLASS.search(name)]:
        anchors = len(found[name]) // ROWS if first == 0 else 1  # RetinaNet has the classes of each anchor
        theirs = found[name].reshape(anchors, ROWS, -1)
        rows = own[name].reshape(anchors, -1, theirs.shape[2]).copy()
        for here, there in pairs:
            rows[:, here] = theirs[:, there]
        found[name] = rows.reshape(own[name].shape)
    for name in found:
        if name.endswith("running_var"):
            found[name] = (found[name] - EPSILON).clip(min=0)  # they were trained without it
    return {**own, **found, **adapt_stem({STEM: found[STEM]}, {STEM: own[STEM]})}


def rename(name: str) -> str:
    """The name that torchvision has given a weight since its file was published."""
    return next((new(found) for old, new in RENAMED if (found := old.fullmatch(name))), name)

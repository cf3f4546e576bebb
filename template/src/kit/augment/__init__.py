"""Augmentation of training images: `data.augment`, `data.mixup_alpha` and `data.cutmix_alpha`.

`build_augmentation` returns a function of a batch; `Pipeline` wraps Albumentations so that threads can share it.
"""

from src.kit.augment.advanced import Pipeline
from src.kit.augment.batches import AUGMENTATIONS, build_augmentation, mix_batch

__all__ = ["AUGMENTATIONS", "Pipeline", "build_augmentation", "mix_batch"]

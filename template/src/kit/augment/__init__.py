"""Random changes of training images."""

from src.kit.augment.advanced import Pipeline
from src.kit.augment.build import AUGMENTATIONS, build
from src.kit.augment.mix import mix

__all__ = ["AUGMENTATIONS", "Pipeline", "build", "mix"]

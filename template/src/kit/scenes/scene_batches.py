"""The `SceneLoader` that the configuration asks for."""

from collections.abc import Callable

import numpy as np
from omegaconf import DictConfig

from src.kit.loading import image_options, refuse_keys
from src.kit.scenes.samples import Sample, Scenes
from src.kit.scenes.scene_loader import SceneLoader


def build_scene_loader(
    cfg: DictConfig,
    scenes: Scenes,
    kind: str,
    rank: int = 0,
    world_size: int = 1,
    arrays: Callable[[list[Sample]], tuple[np.ndarray, ...]] | None = None,
) -> SceneLoader:
    """Batches of `scenes`; `kind` is train (shuffled, augmented), val or test; `rank` is one of `world_size`."""
    refuse_keys(cfg.data, {"sampler": "none", "mixup_alpha": 0, "cutmix_alpha": 0}, "is for task=classification")
    options = image_options(cfg, scenes, kind, rank, world_size)
    return SceneLoader(scenes, image_size=cfg.data.image_size, arrays=arrays, **options)

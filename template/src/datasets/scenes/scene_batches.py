"""The `SceneLoader` that the configuration asks for."""

from collections.abc import Callable

import numpy as np
from omegaconf import DictConfig, OmegaConf

from src.datasets.scenes.samples import Sample, Scenes
from src.datasets.scenes.scene_loader import SceneLoader
from src.utils.errors import UserError


def build_scene_loader(
    cfg: DictConfig,
    scenes: Scenes,
    kind: str,
    rank: int = 0,
    world_size: int = 1,
    arrays: Callable[[list[Sample]], tuple[np.ndarray, ...]] | None = None,
) -> SceneLoader:
    """Batches of `scenes`; `kind` is train (shuffled, augmented), val or test; `rank` is one of `world_size`."""
    for key, off in (("sampler", "none"), ("mixup_alpha", 0), ("cutmix_alpha", 0)):
        if cfg.data[key] != off:
            raise UserError(f"data.{key}={cfg.data[key]} is for task=classification: set it to {off}.")
    train = kind == "train"
    samples = -(-len(scenes) // world_size)
    return SceneLoader(
        scenes,
        cfg.data.batch_size,
        OmegaConf.to_object(cfg.data.mean),
        OmegaConf.to_object(cfg.data.std),
        cfg.data.image_size,
        augment=cfg.data.augment if train else "none",
        sizes=OmegaConf.to_object(cfg.data.sizes) if train and cfg.data.sizes else None,
        shuffle=train,
        seed=cfg.seed,
        # batch normalisation has no variance over a single sample
        drop_last=train and samples > 1 and samples % cfg.data.batch_size == 1,
        limit=cfg.trainer[f"limit_{kind}_batches"],
        rank=rank,
        world_size=world_size,
        num_workers=cfg.data.num_workers,
        arrays=arrays,
    )

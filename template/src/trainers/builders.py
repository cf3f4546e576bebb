"""Loader and network as the configuration asks for them, for both backends."""

import json
from typing import Any

from omegaconf import DictConfig, OmegaConf

from src.datasets.base import Split
from src.datasets.loader import Loader
from src.models import build_model


def build_loader(cfg: DictConfig, split: Split, kind: str, rank: int = 0, world_size: int = 1) -> Loader:
    """Batches of `split`; `kind` is train (shuffled, augmented), val or test; `rank` is one of `world_size`."""
    train = kind == "train"
    samples = -(-len(split) // world_size)
    return Loader(
        split,
        batch_size=cfg.data.batch_size,
        mean=OmegaConf.to_object(cfg.data.mean),
        std=OmegaConf.to_object(cfg.data.std),
        augment=cfg.data.augment if train else "none",
        shuffle=train,
        seed=cfg.seed,
        # batch normalisation has no variance over a single sample
        drop_last=train and samples > 1 and samples % cfg.data.batch_size == 1,
        limit=cfg.trainer[f"limit_{kind}_batches"],
        rank=rank,
        world_size=world_size,
        num_workers=cfg.data.num_workers,
    )


def build_network(cfg: DictConfig, split: Split, initial: bool = True) -> Any:
    """Build `cfg.model` for the split's classes, channels and image size.

    `initial` applies `model.pretrained` and `model.weights`; without it the caller loads a checkpoint.
    """
    if not initial:
        cfg = OmegaConf.merge(cfg, {"model": {"pretrained": False, "weights": None}})
    height, _, channels = split.images.shape
    return build_model(cfg, num_classes=len(split.classes), in_channels=channels, image_size=height)


def describe_network(cfg: DictConfig, split: Split) -> dict[str, str]:
    """Metadata of model.safetensors: enough to use the weights without the run folder."""
    keys = OmegaConf.to_container(cfg.data, resolve=True)
    return {
        "model": json.dumps(OmegaConf.to_container(cfg.model, resolve=True)),
        "framework": cfg.framework,
        "task": cfg.task,
        "classes": json.dumps(split.classes),
        "image_shape": json.dumps(split.images.shape),
        "mean": json.dumps(keys["mean"]),
        "std": json.dumps(keys["std"]),
    }

"""The `Loader` that the configuration asks for."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from src.kit.loading.base import Split
from src.kit.loading.loader import Loader
from src.kit.loading.order import count_samples, order_options


def build_image_loader(cfg: DictConfig, split: Split, kind: str, rank: int = 0, world_size: int = 1) -> Loader:
    """Batches of `split`; `kind` is train (shuffled, augmented), val or test; `rank` is one of `world_size`."""
    alphas: dict[str, Any] = {key: cfg.data[key] if kind == "train" else 0.0 for key in ("mixup_alpha", "cutmix_alpha")}
    return Loader(split, **image_options(cfg, split, kind, rank, world_size), **alphas)


def image_options(cfg: DictConfig, split: Any, kind: str, rank: int, world_size: int) -> dict[str, Any]:
    """What every loader of images is given for `kind`, annotated ones too; only training is augmented."""
    order, size, train = order_options(cfg, kind, rank, world_size), cfg.data.batch_size, kind == "train"
    samples = count_samples(split, train, order["sampler"], rank, world_size)
    return order | {
        "batch_size": size,
        "mean": OmegaConf.to_object(cfg.data.mean),
        "std": OmegaConf.to_object(cfg.data.std),
        "augment": cfg.data.augment if train else "none",
        "sizes": OmegaConf.to_object(cfg.data.sizes) if train and cfg.data.sizes else None,
        # batch normalisation has no variance over a single sample
        "drop_last": train and samples > 1 and samples % size == 1,
        "num_workers": cfg.data.num_workers,
    }

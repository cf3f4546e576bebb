"""The `Loader` that the configuration asks for."""

from omegaconf import DictConfig, OmegaConf

from src.datasets.base import Split
from src.datasets.loading.loader import Loader
from src.datasets.loading.order import count_samples


def build_image_loader(cfg: DictConfig, split: Split, kind: str, rank: int = 0, world_size: int = 1) -> Loader:
    """Batches of `split`; `kind` is train (shuffled, augmented), val or test; `rank` is one of `world_size`."""
    train = kind == "train"
    sampler = cfg.data.sampler if train else "none"
    samples = count_samples(split, train, sampler, rank, world_size)
    return Loader(
        split,
        batch_size=cfg.data.batch_size,
        mean=OmegaConf.to_object(cfg.data.mean),
        std=OmegaConf.to_object(cfg.data.std),
        augment=cfg.data.augment if train else "none",
        mixup_alpha=cfg.data.mixup_alpha if train else 0.0,
        cutmix_alpha=cfg.data.cutmix_alpha if train else 0.0,
        sizes=OmegaConf.to_object(cfg.data.sizes) if train and cfg.data.sizes else None,
        sampler=sampler,
        shuffle=train,
        seed=cfg.seed,
        # batch normalisation has no variance over a single sample
        drop_last=train and samples > 1 and samples % cfg.data.batch_size == 1,
        limit=cfg.trainer[f"limit_{kind}_batches"],
        rank=rank,
        world_size=world_size,
        num_workers=cfg.data.num_workers,
    )

"""The picture of a batch as the network sees it."""

from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from src.kit.loading import Split, build_image_loader
from src.kit.report import FAINT, draw_grid, shorten


def draw_image_batch(cfg: DictConfig, dataset: Split, split: str, path: Path, count: int) -> Path:
    """Draw up to `count` images of the first batch of `split` with their class names, as a PNG."""
    images, targets = next(iter(build_image_loader(cfg, dataset, split)))
    mean, std = (np.array(cfg.data[key], np.float32)[:, None, None] for key in ("mean", "std"))
    pixels = np.rint((images[:count] * std + mean).clip(0, 1) * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    captions = [[(name_of(target, dataset.classes), FAINT)] for target in targets[:count]]
    return draw_grid(pixels, captions, describe_batch(cfg, split), path)


def describe_batch(cfg: DictConfig, split: str) -> str:
    """A title: the split and everything that changes training images."""
    title = f"{cfg.data.name}: {split} split"
    if split != "train":
        return title
    mixed = [f"{key}={cfg.data[key]}" for key in ("mixup_alpha", "cutmix_alpha") if cfg.data[key]]
    sizes = [f"sizes={list(cfg.data.sizes)}"] if cfg.data.sizes else []
    return ", ".join([title, f"augment={cfg.data.augment}", *mixed, *sizes])


def name_of(target: np.ndarray, classes: tuple[str, ...]) -> str:
    """The name of a class, or the two likeliest classes of a mixed image: "60% cat, 40% dog"."""
    if target.ndim == 0:
        return shorten(classes[int(target)], 16)
    best = [number for number in np.argsort(-target)[:2] if target[number] > 0]
    return ", ".join(f"{target[number]:.0%} {shorten(classes[number], 8)}" for number in best)

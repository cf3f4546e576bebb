"""The picture of a batch as the network sees it."""

from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from src.kit.config import UserError
from src.kit.loading import Split, build_image_loader
from src.kit.report import FAINT, draw_grid, shorten


def draw_batch(cfg: DictConfig, dataset: Any, split: str, path: Path, most: int) -> Path:
    """Draw up to `most` images of the first batch, with class names or with boxes and outlines, as a PNG.

    Raises:
        UserError: the data are no images.
    """
    if not isinstance(dataset, Split):
        from src.kit.scenes import build_scene_loader, draw_scenes

        batch: Any = next(iter(build_scene_loader(cfg, dataset, split)))
        return draw_scenes(batch[1][:most], dataset.classes, describe(cfg, split), path)
    if dataset.content != Split.content:
        raise UserError(
            f"data={cfg.data.name} holds {dataset.content} and no images: look at it with "
            f"`python scripts/validate_data.py data={cfg.data.name}`."
        )
    images, targets = next(iter(build_image_loader(cfg, dataset, split)))
    mean, std = (np.array(cfg.data[key], np.float32)[:, None, None] for key in ("mean", "std"))
    pixels = np.rint((images[:most] * std + mean).clip(0, 1) * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    captions = [[(name_of(target, dataset.classes), FAINT)] for target in targets[:most]]
    return draw_grid(pixels, captions, describe(cfg, split), path)


def describe(cfg: DictConfig, split: str) -> str:
    """The picture's title: what is shown, and everything that changes training images."""
    title = f"{cfg.data.name}: {split} split"
    if split != "train":
        return title
    mixed = [f"{key}={cfg.data[key]}" for key in ("mixup_alpha", "cutmix_alpha") if cfg.data[key]]
    sizes = [f"sizes={list(cfg.data.sizes)}"] if cfg.data.sizes else []
    return ", ".join([title, f"augment={cfg.data.augment}", *mixed, *sizes])


def name_of(target: np.ndarray, classes: tuple[str, ...]) -> str:
    """The name of a class number, or the two likeliest of a mixed image: "60% cat, 40% dog"."""
    if target.ndim == 0:
        return shorten(classes[int(target)], 16)
    best = [number for number in np.argsort(-target)[:2] if target[number] > 0]
    return ", ".join(f"{target[number]:.0%} {shorten(classes[number], 8)}" for number in best)

"""CIFAR-10: 60,000 colour photos of 32 x 32 in 10 classes, from the binary archive, so that nothing is unpickled.

Krizhevsky, 2009, https://www.cs.toronto.edu/~kriz/cifar.html
"""

from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from src.kit.catalog import fetch_dataset
from src.kit.config import UserError
from src.kit.loading import ArrayImages, Split
from src.kit.splitting import split_off_val

FOLDER = "cifar-10-batches-bin"
FILES = {"train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)), "test": ("test_batch.bin",)}
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
RECORD = 1 + 3 * 32 * 32  # the label, then the red, green and blue planes


def load(cfg_data: DictConfig, split: str, seed: int) -> Split:
    """Colour images (N, 32, 32, 3). "val" is `val_fraction` of the 50,000; "test" the 10,000 of the publisher."""
    folder = Path(cfg_data.root).expanduser() / FOLDER
    names = FILES["test" if split == "test" else "train"]
    records = np.concatenate([read_records(folder / name) for name in names])
    targets = records[:, 0].astype(np.int64)
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    chosen = np.arange(len(targets)) if split == "test" else split_off_val(targets, cfg_data, seed, split)
    return Split(ArrayImages(images[chosen], cfg_data.image_size), targets[chosen], CLASSES, ids=chosen)


def read_records(path: Path) -> np.ndarray:
    """Read one binary batch: uint8 (N, 3073), the label first."""
    try:
        content = np.fromfile(path, np.uint8)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: run `python scripts/download.py data=cifar10`.") from error
    if len(content) == 0 or len(content) % RECORD or content[::RECORD].max() >= len(CLASSES):
        raise UserError(
            f"{path} is no CIFAR-10 batch (records of {RECORD} bytes that start with 0 to 9): "
            f"delete {path.parent} and run `python scripts/download.py data=cifar10`."
        )
    return content.reshape(-1, RECORD)


def download(cfg_data: DictConfig) -> Path:
    """Fetch and verify the archive and unpack it into `cfg_data.root`."""
    return fetch_dataset("cifar10", cfg_data.root)

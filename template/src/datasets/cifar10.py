"""CIFAR-10: 60,000 colour photos of 32 x 32 pixels in 10 classes, from the binary archive, so nothing is unpickled.

Krizhevsky, 2009, https://www.cs.toronto.edu/~kriz/cifar.html
"""

from pathlib import Path

import numpy as np

from src.kit.catalog import fetch_dataset
from src.kit.config import UserError
from src.kit.loading import ArrayImages, Split
from src.kit.splitting import SplitRule

FOLDER = "cifar-10-batches-bin"
FILES = {"train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)), "test": ("test_batch.bin",)}
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
RECORD = 1 + 3 * 32 * 32  # bytes: the label, then the red, green and blue planes


def build(split: SplitRule, *, root: str = "data/cifar10", image_size: int = 32) -> Split:
    """Colour images (N, image_size, image_size, 3). "val" is cut from the 50,000; "test" is the publisher's 10,000.

    Args:
        root: Folder of the data set.
        image_size: Height and width in pixels; the originals have 32.
    """
    folder = Path(root).expanduser() / FOLDER
    names = FILES["test" if split.name == "test" else "train"]
    records = np.concatenate([read_records(folder / name) for name in names])
    targets = records[:, 0].astype(np.int64)
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    chosen = np.arange(len(targets)) if split.name == "test" else split.choose(targets)
    return Split(ArrayImages(images[chosen], image_size), targets[chosen], CLASSES, ids=chosen)


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


def download(*, root: str) -> Path:
    """Download, verify and unpack the archive into `root`."""
    return fetch_dataset("cifar10", root)

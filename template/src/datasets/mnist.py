"""MNIST: 70,000 hand-written digits of 28 x 28 pixels, from the original IDX files (LeCun, Cortes and Burges).

The file format: http://yann.lecun.com/exdb/mnist/
"""

import gzip
import math
import zlib
from pathlib import Path
from typing import Annotated

import numpy as np

from src.kit.catalog import fetch_dataset
from src.kit.config import Range, UserError
from src.kit.loading import ArrayImages, Split
from src.kit.splitting import SplitRule


def build(split: SplitRule, *, root: str = "data/mnist", image_size: Annotated[int, Range(min=1)] = 28) -> Split:
    """Grey images (N, image_size, image_size, 1). "val" is cut from the 60,000; "test" is the publisher's 10,000.

    Args:
        root: Folder of the data set.
        image_size: Height and width in pixels; the originals have 28.
    """
    folder = Path(root).expanduser()
    prefix = "t10k" if split.name == "test" else "train"
    images = read_idx(folder / f"{prefix}-images-idx3-ubyte", 3)[..., None]
    targets = read_idx(folder / f"{prefix}-labels-idx1-ubyte", 1).astype(np.int64)
    if len(images) != len(targets) or (len(targets) and targets.max() > 9):
        raise UserError(
            f"{folder} holds {len(images)} {prefix} images and {len(targets)} labels, and needs one label of 0 to 9 "
            "for each image: empty the folder and run `python scripts/download.py data=mnist`."
        )
    chosen = np.arange(len(targets)) if split.name == "test" else split.choose(targets)
    classes = tuple(str(digit) for digit in range(10))
    return Split(ArrayImages(images[chosen], image_size), targets[chosen], classes, flippable=False, ids=chosen)


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Read an IDX file of unsigned bytes, `path` or `path`.gz, and check its magic number and length."""
    packed = path.with_name(path.name + ".gz")
    try:
        content = path.read_bytes() if path.is_file() or not packed.is_file() else gzip.decompress(packed.read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist: run `python scripts/download.py data=mnist`.") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(
            f"{packed} is damaged ({error}): delete it and run `python scripts/download.py data=mnist`."
        ) from error
    start = 4 + 4 * dimensions
    shape = tuple(int.from_bytes(content[at : at + 4], "big") for at in range(4, start, 4))
    # two zero bytes, 8 = unsigned byte, number of dimensions
    if content[:4] != bytes([0, 0, 8, dimensions]) or len(content) != start + math.prod(shape):
        raise UserError(
            f"{path} is no IDX file of {dimensions} dimensions: "
            "delete it and run `python scripts/download.py data=mnist`."
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def download(*, root: str) -> Path:
    """Download, verify and unpack the four files into `root`."""
    return fetch_dataset("mnist", root)

"""Write scikit-learn's digits in the formats of MNIST, CIFAR-10 and an image folder, for runs without a network."""

import gzip
import struct
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits


def write(dataset: str, folder: Path) -> None:
    """Put a small data set where `data=<dataset>` looks for it; digits needs no file."""
    writers = {"mnist": write_mnist, "cifar10": write_cifar10, "image_folder": write_image_folder}
    if dataset in writers:
        writers[dataset](folder)


def digits(size: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (1797, size, size) and the labels uint8 (1797,)."""
    images, labels = load_digits(return_X_y=True)
    small = (images.reshape(-1, 8, 8) * 255 / 16).astype(np.uint8)
    large = [np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)) for image in small]
    return np.stack(large), labels.astype(np.uint8)


def write_mnist(folder: Path) -> None:
    """The four IDX files of MNIST (LeCun et al. 1998)."""
    images, labels = digits(28)
    (folder / "mnist").mkdir(parents=True, exist_ok=True)
    for name, part in (("train", slice(0, 1500)), ("t10k", slice(1500, None))):
        count = len(labels[part])
        header = struct.pack(">IIII", 2051, count, 28, 28)
        with gzip.open(folder / "mnist" / f"{name}-images-idx3-ubyte.gz", "wb", 1) as file:
            file.write(header + images[part].tobytes())
        with gzip.open(folder / "mnist" / f"{name}-labels-idx1-ubyte.gz", "wb", 1) as file:
            file.write(struct.pack(">II", 2049, count) + labels[part].tobytes())


def write_cifar10(folder: Path) -> None:
    """The six files of CIFAR-10's binary version: a record is one label byte and 3 x 32 x 32 channel-first bytes."""
    images, labels = digits(32)
    records = np.concatenate([labels[:, None], np.tile(images.reshape(-1, 1024), (1, 3))], axis=1)
    target = folder / "cifar10" / "cifar-10-batches-bin"
    target.mkdir(parents=True, exist_ok=True)
    for number, part in enumerate(np.array_split(records[:1500], 5), start=1):
        (target / f"data_batch_{number}.bin").write_bytes(part.tobytes())
    (target / "test_batch.bin").write_bytes(records[1500:].tobytes())
    (target / "batches.meta.txt").write_text("\n".join(map(str, range(10))) + "\n", "utf-8")


def write_image_folder(folder: Path) -> None:
    """One folder of PNG files a class."""
    images, labels = digits(32)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        target = folder / "images" / f"digit-{label}"
        target.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(target / f"{number:04d}.png")

"""Cut a small data set out of a large one.

create_mini_dataset("data/images", 500, 0.2, "data/mini")              # then: data=image_folder data.root=data/mini
create_mini_dataset(build_dataset(load_config(["data=mnist"]), "train"), 500, 0.2, "data/mini-mnist")
"""

import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import numpy as np
from PIL import Image

from src.kit.config import UserError
from src.kit.loading import FileImages, Split, find_splits, list_images, scan_classes
from src.kit.splitting import iterative_split

__all__ = ["create_mini_dataset"]

# classes int64 (N,) or sets of classes bool (N, K), the class names, and a function that writes samples:
# (folder, "train" or "val", sample numbers)
Original = tuple[np.ndarray, tuple[str, ...], Callable[[Path, str, np.ndarray], None]]


def create_mini_dataset(
    original_dataset: Path | str | Split,
    sample_count: int,
    validation_split: float,
    output_dir: Path | str,
    seed: int = 0,
) -> Path:
    """Write a random sample of the training images with the same shares of every class, divided into train and val.

    Args:
        original_dataset: a folder of images, which is copied in its own format, or a `Split`, which becomes an image
            folder of PNG files (its own files are copied).
        sample_count: number of images in train and val together.
        validation_split: share of val, in [0, 1); 0 writes train only.
        output_dir: a folder that doesn't exist yet; it appears when it is complete.
        seed: another seed draws other images.

    Returns:
        `output_dir`, for `data.root` with data=image_folder, or with the data set of the original folder's format.

    Raises:
        UserError: data without a class for each image, fewer images than `sample_count`, too few for one of each class
            in both parts, a share out of its range, or an `output_dir` that exists.
    """
    target = Path(output_dir).expanduser()
    if target.exists():
        raise UserError(f"{target} exists: delete it or choose another output_dir.")
    if not 0 <= validation_split < 1:
        raise UserError(f"validation_split must be at least 0 and below 1, but it is {validation_split:g}.")
    targets, classes, write = open_original(original_dataset)
    if not 0 < sample_count <= len(targets):
        raise UserError(
            f"sample_count must be 1 to {len(targets):,}, as many images as there are, not {sample_count:,}."
        )
    val_count = round(sample_count * validation_split)
    if targets.ndim == 2:
        train, val = draw_labels(targets, sample_count - val_count, val_count, seed)
    else:
        train, val = draw_classes(targets, classes, sample_count, val_count, validation_split > 0, seed)
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        for name, chosen in (("train", train), ("val", val)):
            if len(chosen):
                write(partial, name, chosen)
        partial.replace(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def open_original(original: Path | str | Split) -> Original:
    """Open a `Split` or a folder in any format that this project reads."""
    content = getattr(original, "content", Split.content)  # a path has none
    if content != Split.content:
        raise UserError(
            f"The data set given holds {content}, and create_mini_dataset takes {Split.content}, or the path of a "
            "data set's folder: pass that."
        )
    if isinstance(original, Split):
        return (
            original.targets,
            original.classes,
            lambda folder, name, chosen: write_split(original, chosen, folder / name),
        )
    root = Path(original).expanduser()
    for module in iter_modules([str(Path(__file__).parent)]):  # other formats, which a project has by its tasks
        if module.name.startswith("read_"):
            opened: Original | None = import_module(f"{__package__}.{module.name}").open_folder(root)
            if opened is not None:
                return opened
    return open_class_folders(root)


def open_class_folders(root: Path) -> Original:
    """Open a folder of class folders."""
    folder = find_splits(root)["train"]
    found = scan_classes(folder)
    classes = tuple(found)
    paths, targets = list_images({folder: found}, classes)

    def copy(partial: Path, name: str, chosen: np.ndarray) -> None:
        for index in chosen:
            target = partial / name / paths[index].relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(paths[index], target)

    return targets, classes, copy


def write_split(split: Split, chosen: np.ndarray, folder: Path) -> None:
    """Write images as `<folder>/<class>/<number>.png`; those in files are copied with their own suffix."""
    for index in chosen:
        target = folder / split.classes[split.targets[index]] / f"{index:06d}"
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(split.images, FileImages):
            path = split.images.paths[index]
            shutil.copy2(path, target.with_suffix(path.suffix))
        else:
            pixels = split.images.get(np.array([index]))[0]
            Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(target.with_suffix(".png"))


def draw_classes(
    targets: np.ndarray, classes: tuple[str, ...], count: int, val_count: int, both: bool, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw exactly `count` samples, at least one of each class in each part, with the shares of the whole."""
    present, sizes = np.unique(targets, return_counts=True)
    least = 2 if both else 1
    if small := [classes[number] for number, size in zip(present, sizes, strict=True) if size < least]:
        raise UserError(f"The class {small[0]} has too few images: one is needed for train and one for val.")
    if count - val_count < len(present) or (both and val_count < len(present)):
        raise UserError(
            f"sample_count={count:,} is too small: it leaves {count - val_count:,} images for train and {val_count:,} "
            f"for val, and there are {len(present)} classes."
        )
    quotas = share_out(count, sizes, least)
    val_quotas = share_out(val_count, quotas - 1, 1) if both else np.zeros_like(quotas)
    rng = np.random.default_rng(seed)
    train, val = [], []
    for number, quota, val_quota in zip(present, quotas, val_quotas, strict=True):
        drawn = rng.permutation(np.flatnonzero(targets == number))[:quota]
        val.append(drawn[:val_quota])
        train.append(drawn[val_quota:])
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(val))


def share_out(total: int, sizes: np.ndarray, least: int) -> np.ndarray:
    """Divide `total` in proportion to `sizes`, at least `least` to each, by largest remainders: int64 (K,)."""
    exact = total * sizes / sizes.sum()
    shares = np.floor(exact).astype(np.int64)
    shares[np.argsort(shares - exact, kind="stable")[: total - shares.sum()]] += 1
    while shares.min() < least:
        shares[shares.argmin()] += 1
        shares[np.where(shares > least, shares - exact, -np.inf).argmax()] -= 1
    return shares


def draw_labels(labels: np.ndarray, train: int, val: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw exactly `train` and `val` samples with sets of classes bool (N, K), with nearly the shares of the whole."""
    counts = (train, val, len(labels) - train - val)
    parts = iterative_split(labels.astype(np.int64), [count / len(labels) for count in counts], seed)
    order = np.concatenate([parts[0], parts[2], parts[1]])  # a part may have a few samples too many or too few
    return np.sort(order[:train]), np.sort(order[len(order) - val :])

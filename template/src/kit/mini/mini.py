"""A small data set cut out of a large one, to try things out in seconds on data of the same kind.

create_mini_dataset("data/images", 500, 0.2, "data/mini")              # then: data=image_folder data.root=data/mini
create_mini_dataset(build_dataset(load_config(["data=mnist"]), "train"), 500, 0.2, "data/mini-mnist")
"""

import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from src.kit.config import UserError
from src.kit.loading import FileImages, Split, collect, find_splits, scan
from src.kit.mini.mini_draw import draw_classes, draw_scenes

Write = Callable[[Path, str, np.ndarray], None]  # (folder, "train" or "val", sample numbers) writes one part


def create_mini_dataset(
    original: Path | str | Split, sample_count: int, validation_split: float, output_dir: Path | str, seed: int = 0
) -> Path:
    """Write a sample of the training images with the same shares of every class, divided into train and val.

    Args:
        original: an image folder, a COCO folder or a YOLO folder, which are copied in their own format, or a `Split`,
            which becomes an image folder of PNG files (files of its own are copied).
        sample_count: images in all.
        validation_split: the share of them that goes to val, from 0 and below 1; 0 writes train only.
        output_dir: a folder that does not exist yet; it appears when it is complete.
        seed: another seed draws other images.

    Returns:
        `output_dir`, for data=image_folder, data=coco_folder or data=yolo_folder.

    Raises:
        UserError: a data set that has no class for each image, more images than there are, too few for one of each
            class in both parts, a share out of its range, or an `output_dir` that exists.
    """
    target = Path(output_dir).expanduser()
    if target.exists():
        raise UserError(f"{target} exists: delete it or choose another output_dir.")
    if not 0 <= validation_split < 1:
        raise UserError(f"validation_split must be at least 0 and below 1, but it is {validation_split:g}.")
    targets, classes, write = open_original(original)
    if not 0 < sample_count <= len(targets):
        raise UserError(
            f"sample_count must be 1 to {len(targets):,}, as many images as there are, not {sample_count:,}."
        )
    val_count = round(sample_count * validation_split)
    if targets.ndim == 2:
        train, val = draw_scenes(targets, sample_count - val_count, val_count, seed)
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


def open_original(original: Path | str | Split) -> tuple[np.ndarray, tuple[str, ...], Write]:
    """Its classes int64 (N,) or sets of classes bool (N, K), the class names, and what writes a part of it."""
    content = getattr(original, "content", Split.content)  # a path has none
    if content != Split.content:
        raise UserError(
            f"The data set given holds {content}, and create_mini_dataset takes {Split.content}, or the path of an "
            "image, COCO or YOLO folder: give it one of these."
        )
    if isinstance(original, Split):
        return (
            original.targets,
            original.classes,
            lambda folder, name, chosen: write_split(original, chosen, folder / name),
        )
    root = Path(original).expanduser()
    if find_spec("src.kit.scenes.mini_scenes"):  # the project has data sets with boxes
        from src.kit.scenes import coco_parts, is_coco, is_yolo, yolo_parts

        if is_coco(root):
            return coco_parts(root)
        if is_yolo(root):
            return yolo_parts(root)
    folder = find_splits(root)["train"]
    classes = tuple(scan(folder))
    paths, targets = collect([folder], classes)

    def copy(partial: Path, name: str, chosen: np.ndarray) -> None:
        for index in chosen:
            place = partial / name / paths[index].relative_to(folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(paths[index], place)

    return targets, classes, copy


def write_split(split: Split, chosen: np.ndarray, folder: Path) -> None:
    """Write images as `<folder>/<class>/<number>.png`; those in files are copied with their own suffix."""
    for index in chosen:
        place = folder / split.classes[split.targets[index]] / f"{index:06d}"
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(split.images, FileImages):
            path = split.images.paths[index]
            shutil.copy2(path, place.with_suffix(path.suffix))
        else:
            pixels = split.images.get(np.array([index]))[0]
            Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(place.with_suffix(".png"))

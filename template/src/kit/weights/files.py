"""Weights that belong to no framework: NumPy arrays with PyTorch's names and layouts, in .safetensors files."""

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from src.kit.config import UserError
from src.kit.weights.timm_names import rename

Arrays = dict[str, np.ndarray]

log = logging.getLogger("train")  # of the run, which shows and keeps it

PRETRAINED = {
    "resnet18": "timm/resnet18.tv_in1k",
    "resnet34": "timm/resnet34.tv_in1k",
    "resnet50": "timm/resnet50.tv_in1k",
    "efficientnet_b0": "timm/efficientnet_b0.ra_in1k",
    "resnet18_attention": "timm/resnet18.tv_in1k",
}
IMAGENET_CLASSES = 1000
STEMS = ("conv1.weight", "features.0.0.weight")


def save(path: str | Path, arrays: Mapping[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Write a .safetensors file; an interrupted write leaves an existing file as it was."""
    path = Path(path)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, temporary, metadata)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load(path: str | Path) -> tuple[Arrays, dict[str, str]]:
    """Read a .safetensors file, ours or timm's: the arrays by name, and the metadata that `save` was given.

    Raises:
        UserError: the file is missing, corrupt, or of another format.
    """
    with opened(path) as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
        return rename(arrays), file.metadata() or {}


def load_metadata(path: str | Path) -> dict[str, str]:
    """What `save` was given beside the arrays, which are not read; raises what `load` does."""
    with opened(path) as file:
        return file.metadata() or {}


@contextmanager
def opened(path: str | Path) -> Iterator[safe_open]:
    """A .safetensors file that is there and whole."""
    path = Path(path)
    if path.suffix != ".safetensors":
        raise UserError(f"Weights must be a .safetensors file, not {path.name!r}; every checkpoint folder has one.")
    if not path.is_file():
        raise UserError(f"There is no weights file {path}; give the path of a model.safetensors.")
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except SafetensorError as error:
        raise UserError(f"The weights file {path} is corrupt ({error}); copy or download it again.") from error


def pretrained(name: str) -> Arrays:
    """ImageNet-1k weights from the Hugging Face hub (or the mirror HF_ENDPOINT), from its local cache the next time.

    Raises:
        UserError: there are none for this model, or they cannot be downloaded.
    """
    if name not in PRETRAINED:
        raise UserError(f"There are no pretrained weights for {name!r}; there are for: {', '.join(PRETRAINED)}.")
    from huggingface_hub import hf_hub_download  # costs 0.2 s, which only this caller should pay
    from huggingface_hub.errors import HfHubHTTPError

    repository = PRETRAINED[name]
    try:
        path = hf_hub_download(repository, "model.safetensors")
    except (OSError, HfHubHTTPError) as error:
        reason = str(error).strip().partition("\n")[0].partition(". ")[0] or type(error).__name__
        raise UserError(
            f"Cannot download the pretrained weights {repository} ({reason}); set HF_ENDPOINT to a mirror, or fetch "
            "model.safetensors on another machine and give it as model.weights=FILE."
        ) from error
    return load(path)[0]


def adapt_stem(arrays: Arrays, initial: Arrays) -> Arrays:
    """Fit the first convolution (O, 3, k, k) to a network with `initial` weights.

    With other than 3 input channels each gets the mean of the three, scaled so that the activations keep their size:
    a grey image then gives what its RGB copy would. A stem of another kernel size (small images) keeps its initial
    values, and the log says so: the rest of the network is still worth more than a random start.
    """
    name = next(stem for stem in STEMS if stem in initial)
    stem, shape = arrays[name], initial[name].shape
    if stem.shape[2:] != shape[2:]:
        log.warning(
            "The pretrained %s has a %dx%d kernel and this network %dx%d: it starts from random values; for every "
            "pretrained weight set model.stem=imagenet and data.image_size=224.",
            *(name, *stem.shape[2:], *shape[2:]),
        )
        stem = initial[name]
    elif stem.shape[1] != shape[1]:
        log.info("The pretrained %s was averaged from %d to %d input channels.", name, stem.shape[1], shape[1])
        stem = np.repeat(stem.mean(axis=1, keepdims=True), shape[1], axis=1) * (stem.shape[1] / shape[1])
    return {**arrays, name: stem.astype(np.float32)}


def count_classes(metadata: Mapping[str, str]) -> int:
    """For how many classes the weights were trained; a file that doesn't say so is taken for one of ImageNet's."""
    try:
        return len(json.loads(metadata["classes"]))
    except (KeyError, TypeError, ValueError):  # absent, or another program's key of that name
        return IMAGENET_CLASSES


def left_out(arrays: Arrays, initial: Arrays, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Names of the weights for which a file made for other classes has nothing, so that they keep `initial` values.

    They are those whose shape depends on the classes, and those of layers that the file doesn't have at all.

    Args:
        shapes: of the same network, built for the file's classes.
    """
    layers = {name.partition(".")[0] for name in arrays}

    def is_left_out(name: str) -> bool:
        if name in arrays:
            return initial[name].shape not in (arrays[name].shape, shapes[name])
        return name.partition(".")[0] not in layers

    return [name for name in initial if is_left_out(name)]


def check(arrays: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse arrays whose names or shapes are not exactly the network's.

    Raises:
        UserError: names the first difference and both shapes.
    """
    for name in sorted({*arrays, *shapes}):
        found = tuple(arrays[name].shape) if name in arrays else "absent"
        expected = tuple(shapes[name]) if name in shapes else "absent"
        if found != expected:
            raise UserError(
                f"This is a checkpoint of another model: {name} is {found} in the file and {expected} in the network; "
                "choose the model, the arguments and the framework that the file was trained with."
            )

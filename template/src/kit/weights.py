"""Weights that belong to no framework: NumPy arrays under PyTorch's names and layouts, in `.safetensors` files."""

import json
import logging
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from src.kit.config import UserError
from src.kit.download import fetch
from src.kit.storage import replace_file, translate_errors

__all__ = [
    "IMAGENET_CLASSES",
    "adapt_positions",
    "adapt_stem",
    "backbone_names",
    "check_shapes",
    "compressed_shapes",
    "compression_of",
    "count_classes",
    "download_published",
    "download_weights",
    "fit_backbone",
    "load_metadata",
    "load_weights",
    "missing_weights",
    "open_weights",
    "rename_timm",
    "save_weights",
    "stream_weights",
]

Arrays = dict[str, np.ndarray]

log = logging.getLogger("train")  # the run's, which prints and saves it

IMAGENET_CLASSES = 1000
# timm's names of EfficientNet's layers -> torchvision's (those of ResNets are equal)
OUTER = {
    "conv_stem": "features.0.0",
    "bn1": "features.0.1",
    "conv_head": "features.8.0",
    "bn2": "features.8.1",
    "classifier": "classifier.1",
}
# The first stage does not expand its channels, so that its blocks have one convolution less.
FIRST_STAGE = {
    "conv_dw": "0.0",
    "bn1": "0.1",
    "se.conv_reduce": "1.fc1",
    "se.conv_expand": "1.fc2",
    "conv_pw": "2.0",
    "bn2": "2.1",
}
STAGE = {
    "conv_pw": "0.0",
    "bn1": "0.1",
    "conv_dw": "1.0",
    "bn2": "1.1",
    "se.conv_reduce": "2.fc1",
    "se.conv_expand": "2.fc2",
    "conv_pwl": "3.0",
    "bn3": "3.1",
}


def save_weights(path: str | Path, arrays: Mapping[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Write a .safetensors file; an interrupted write leaves an existing file as it was (a power cut may not).

    Raises:
        OSError: the disk is full or broken.
    """
    path = Path(path)
    with replace_file(path, wait=False) as partial, translate_errors(path, SafetensorError):
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, partial, metadata)


def stream_weights(
    path: Path, shapes: Mapping[str, tuple[int, ...]], arrays: Iterable[np.ndarray], metadata: dict[str, str]
) -> None:
    """Write a .safetensors file of float32, an array at a time, so that no process has to hold them all.

    Args:
        shapes: of the arrays, by name, in their order.

    Raises:
        OSError: the disk is full or broken.
    """
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with replace_file(path, wait=False) as partial, partial.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in arrays:
            file.write(np.ascontiguousarray(array, "<f4").tobytes())


def load_weights(path: str | Path) -> tuple[Arrays, dict[str, str]]:
    """Read a .safetensors file: the arrays by name, and the metadata that `save_weights` wrote.

    BatchNorm's batch counters, which inference never reads, are left out.

    Raises:
        UserError: the file is missing, corrupt, or of another format.
    """
    with open_weights(path) as file:
        names = [name for name in file.keys() if not name.endswith("num_batches_tracked")]  # noqa: SIM118 (not a dict)
        return {name: file.get_tensor(name) for name in names}, file.metadata() or {}


def load_metadata(path: str | Path) -> dict[str, str]:
    """Read only the metadata of a .safetensors file; raises what `load_weights` does."""
    with open_weights(path) as file:
        return file.metadata() or {}


@contextmanager
def open_weights(path: str | Path) -> Iterator[safe_open]:
    """Open a .safetensors file; see `load_weights` for errors."""
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


def download_weights(repository: str, file: str = "model.safetensors") -> Path:
    """Fetch a file from the Hugging Face hub (or the mirror HF_ENDPOINT), or else from its local cache.

    Raises:
        UserError: they cannot be downloaded.
    """
    from huggingface_hub import hf_hub_download  # slow to import: 0.2 s
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(hf_hub_download(repository, file))
    except (OSError, HfHubHTTPError) as error:
        reason = str(error).strip().partition("\n")[0].partition(". ")[0] or type(error).__name__
        raise UserError(
            f"Cannot download the pretrained weights {repository} ({reason}); set HF_ENDPOINT to a mirror, or run "
            f"`hf download {repository} {file}` on another machine and copy models--{repository.replace('/', '--')} "
            f"from its ~/.cache/huggingface/hub to {HF_HUB_CACHE}."
        ) from error


def download_published(url: str) -> Path:
    """Fetch a file whose name ends in the first digits of its SHA-256, as PyTorch's do, into PyTorch's cache.

    Raises:
        UserError: it cannot be downloaded, or is another file.
    """
    name = url.rpartition("/")[2]
    home = os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "torch"
    target = Path(home).expanduser() / "hub" / "checkpoints" / name
    return fetch(url, target, f"sha256-8:{Path(name).stem[-8:]}", quiet=target.is_file())


def adapt_stem(arrays: Arrays, initial: Arrays) -> Arrays:
    """Fit the first convolution (O, 3, k, k) to a network with `initial` weights.

    With other than 3 input channels each gets the mean of the three, scaled so that the activations keep their size:
    a grey image then gives what its RGB copy would. A stem of another kernel size (small images) keeps its initial
    values, and the log says so: the other layers still are a better start than random ones.
    """
    name = next(name for name, array in initial.items() if array.ndim == 4)
    stem, shape = arrays[name], initial[name].shape
    if stem.shape[2:] != shape[2:]:
        log.warning(
            "The pretrained %s has a %dx%d kernel and this network %dx%d: it starts from random values; for every "
            "pretrained weight set %s and data.image_size=224.",
            *(name, *stem.shape[2:], *shape[2:]),
            "model.patch=16" if name.startswith("patch_embed") else "model.stem=imagenet",
        )
        stem = initial[name]
    elif stem.shape[1] != shape[1]:
        log.info("The pretrained %s was averaged from %d to %d input channels.", name, stem.shape[1], shape[1])
        stem = np.repeat(stem.mean(axis=1, keepdims=True), shape[1], axis=1) * (stem.shape[1] / shape[1])
    return {**arrays, name: stem.astype(np.float32)}


def adapt_positions(arrays: Arrays, initial: Arrays) -> Arrays:
    """Resize a vision transformer's position embeddings (1, N, D), a square after other tokens, to those of `initial`.

    Bicubic with a filter for smaller grids, as in timm; the other tokens keep theirs.
    """
    from PIL import Image

    name = next((each for each in initial if each.rpartition(".")[2] == "pos_embed"), "")
    if name not in arrays or arrays[name].shape == initial[name].shape:
        return arrays
    before, after = (math.isqrt(array[name].shape[1]) for array in (arrays, initial))
    others = arrays[name].shape[1] - before**2
    if others != initial[name].shape[1] - after**2:
        return arrays
    maps = np.moveaxis(arrays[name][0, others:].reshape(before, before, -1).astype(np.float32), 2, 0)
    resized = [
        Image.fromarray(np.ascontiguousarray(each)).resize((after, after), Image.Resampling.BICUBIC) for each in maps
    ]
    grid = np.stack([np.asarray(each).ravel() for each in resized], axis=1)
    log.info("The position embeddings were resized from %d x %d to %d x %d patches.", before, before, after, after)
    return {**arrays, name: np.concatenate([arrays[name][:, :others], grid[None]], axis=1)}


def backbone_names(names: Iterable[str], initial: Iterable[str], prefix: str) -> dict[str, str]:
    """A classifier's names of what a backbone has too -> its names there; timm's encoders write stem_0 for stem.0."""
    known = {name.removeprefix(prefix).replace(".", "_"): name for name in initial if name.startswith(prefix)}
    return {name: known[flat] for name in names if (flat := name.replace(".", "_")) in known}


def fit_backbone(arrays: Arrays, initial: Arrays, prefix: str) -> Arrays:
    """Put a classifier's weights, without its last layers, into the backbone of a network with `initial` weights.

    Raises:
        UserError: they are those of another classifier.
    """
    names = backbone_names(arrays, initial, prefix)
    parts = {name.partition(".")[0] for name in names}
    missing = sorted({name for name in initial if name.startswith(prefix)} - set(names.values()))
    extra = sorted(name for name in arrays if name not in names and name.partition(".")[0] in parts)
    if missing or extra:
        problem = f"{missing[0].removeprefix(prefix)} is missing" if missing else f"{extra[0]} is not part of it"
        raise UserError(f"These weights do not fit this network's backbone: {problem}; take those of the same network.")
    return {**initial, **{ours: arrays[theirs] for theirs, ours in names.items()}}


def count_classes(metadata: Mapping[str, str]) -> int:
    """Return the number of classes that the weights were trained for; without metadata ImageNet's 1000."""
    try:
        return len(json.loads(metadata["classes"]))
    except (KeyError, TypeError, ValueError):  # absent, or written by another program
        return IMAGENET_CLASSES


def compression_of(metadata: Mapping[str, str]) -> dict[str, Any]:
    """How `scripts/compress.py` has made weights smaller.

    Returns:
        channels: the share of the removed channels; dense: name -> the shape before, of each array that was cut;
        sparsity: the share of zeros, which training keeps. Empty if nothing was done.
    """
    try:
        return dict(json.loads(metadata["compression"]))
    except (KeyError, TypeError, ValueError):  # absent, or written by another program
        return {}


def compressed_shapes(
    arrays: Mapping[str, np.ndarray],
    metadata: Mapping[str, str],
    shapes: Mapping[str, tuple[int, ...]],
    own: Mapping[str, tuple[int, ...]] | None = None,
) -> dict[str, tuple[int, ...]]:
    """The shapes that a network has to take so that weights with fewer channels fit: name -> shape.

    Args:
        metadata: of the weights, which says what their network was before.
        shapes: of the network, built for the classes of the weights; only if it is the same as before, it may change.
        own: of the network, if it is built for other classes; their number stays.
    """
    found = {}
    for name, dense in compression_of(metadata).get("dense", {}).items():
        if name in arrays and shapes.get(name) == tuple(dense):
            sizes = zip(arrays[name].shape, shapes[name], (own or shapes)[name], strict=True)
            found[name] = tuple(size if before == wanted else wanted for size, before, wanted in sizes)
    return found


def missing_weights(arrays: Arrays, initial: Arrays, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Return the names of weights that a file made for other classes lacks, so that they keep `initial` values.

    These are weights whose shape depends on the classes, and those of layers that are not in the file at all.

    Args:
        shapes: of the same network, built for the file's classes.
    """
    layers = {name.partition(".")[0] for name in arrays}

    def is_missing(name: str) -> bool:
        if name in arrays:
            return initial[name].shape not in (arrays[name].shape, shapes[name])
        return name.partition(".")[0] not in layers

    return [name for name in initial if is_missing(name)]


def check_shapes(arrays: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]) -> None:
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


def rename_timm(arrays: Arrays, initial: Mapping[str, np.ndarray]) -> Arrays:
    """Rename the layers of timm's EfficientNet for a network that names them as torchvision does."""
    if "conv_stem.weight" not in arrays or "features.0.0.weight" not in initial:
        return arrays
    return {rename_layer(name): array for name, array in arrays.items()}


def rename_layer(name: str) -> str:
    """`blocks.0.0.conv_dw.weight` -> `features.1.0.block.0.0.weight`."""
    layer, _, kind = name.rpartition(".")
    block = re.fullmatch(r"blocks\.(\d+)\.(\d+)\.(.+)", layer)
    if not block:
        return f"{OUTER.get(layer, layer)}.{kind}"
    stage, index, part = int(block[1]), block[2], block[3]
    part = (FIRST_STAGE if stage == 0 else STAGE).get(part, part)
    return f"features.{stage + 1}.{index}.block.{part}.{kind}"

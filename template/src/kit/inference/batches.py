"""From data to a batch and from outputs to predictions, whatever kind of data it is."""

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple, Protocol

import numpy as np

from src.kit.errors import UserError
from src.kit.inference.card import Card

Size = tuple[int, int]  # height and width in pixels; (1, 1) for a row


class Place(NamedTuple):
    """A part of an image, in pixels."""

    left: int
    top: int
    right: int
    bottom: int


class Batch(NamedTuple):
    """What a network takes, and what its outputs are converted back with."""

    arrays: np.ndarray  # float32 (B, *card.input["shape"]), or smaller where the card says rectangular
    sizes: list[Size]  # (height, width) of each image before it was resized


def size_of(image: np.ndarray) -> Size:
    """Height and width of an image (H, W) or (H, W, C)."""
    return image.shape[0], image.shape[1]


class View(NamedTuple):
    """An image seen differently: mirrored, or moved by pixels, where its edge is repeated."""

    mirror: bool = False
    right: int = 0
    down: int = 0

    def __str__(self) -> str:
        moves = {"right": self.right, "left": -self.right, "down": self.down, "up": -self.down}
        words = ["mirrored"] * self.mirror + [f"{pixels} px {way}" for way, pixels in moves.items() if pixels > 0]
        return " and ".join(words) or "as it is"

    def apply(self, arrays: np.ndarray) -> np.ndarray:
        """Images float32 (B, C, H, W) in this view, a new array."""
        moved = arrays[..., ::-1] if self.mirror else arrays
        return np.ascontiguousarray(shift(moved, self.right, self.down))


def shift(arrays: np.ndarray, right: int, down: int) -> np.ndarray:
    """Move (..., H, W) by pixels and repeat the edge that comes in."""
    height, width = arrays.shape[-2:]
    rows, columns = (np.arange(height) - down).clip(0, height - 1), (np.arange(width) - right).clip(0, width - 1)
    moved: np.ndarray = arrays.take(rows, axis=-2).take(columns, axis=-1) if right or down else arrays
    return moved


class Kind(Protocol):
    """One kind of data: a module with these functions. `src/kit/inference/images.py` is one."""

    def read(self, card: Card, source: Any) -> Any:
        """Load one sample, such as a file, into memory."""
        ...

    def prepare(self, card: Card, items: Sequence[Any]) -> Batch:
        """Turn samples in memory into a network's input."""
        ...

    def decode(self, card: Card, outputs: np.ndarray, sizes: Sequence[Size]) -> list[np.ndarray]:
        """One result a sample, an array in the sample's own coordinates."""
        ...

    def fuse(self, card: Card, results: Sequence[np.ndarray]) -> np.ndarray:
        """One result of several for the same sample, which different networks or views gave."""
        ...

    def describe(self, card: Card, result: np.ndarray, size: Size) -> dict[str, Any]:
        """Name the classes and drop what is too uncertain."""
        ...

    def features(self, card: Card, batch: Batch) -> dict[str, np.ndarray]:
        """Cheap figures of each sample, (B,) by name, in which `Drift` sees whether the data have changed."""
        ...


class PlacedKind(Kind, Protocol):
    """A kind whose results have places in the image: they are converted back from views, and joined from tiles."""

    def undo(self, card: Card, outputs: np.ndarray, view: View, width: int) -> np.ndarray:
        """Outputs for a view of images of so many pixels' width -> outputs for the images themselves."""
        ...

    def cut(self, image: np.ndarray, side: int) -> tuple[list[Place], list[np.ndarray]]:
        """Overlapping tiles of an image (H, W, C), at most `side` pixels wide and high, and their places."""
        ...

    def join(self, card: Card, results: Sequence[np.ndarray], places: Sequence[Place], size: Size) -> dict[str, Any]:
        """`describe` for an image whose tiles at these places gave these results."""
        ...


def kind_of(card: Card) -> Kind:
    """The module for the card's kind of data.

    Raises:
        UserError: this project has none for it.
    """
    name = "src.kit.inference.images" if card.kind == "images" else f"src.kit.inference_{card.kind}"
    if not card.kind.isidentifier() or not find_spec(name):
        raise UserError(
            f"This project has no task={card.task}: add it with `copier update`, or use the project that trained it."
        )
    kind: Any = import_module(name)
    return kind  # type: ignore[no-any-return]


def preprocess(card: Card, inputs: Sequence[Any]) -> Batch:
    """Prepare inputs as the validation data were in training.

    Args:
        inputs: for images, files, their contents (bytes) or uint8 arrays (H, W), (H, W, 1) or (H, W, 3); for tables,
            rows as mappings from columns to values.

    Returns:
        float32 arrays of the shape that the card states, and the images' own sizes.

    Raises:
        UserError: an input that cannot be read.
    """
    kind = kind_of(card)
    return kind.prepare(card, [kind.read(card, source) for source in inputs])


def postprocess(card: Card, outputs: np.ndarray, sizes: Sequence[Size]) -> list[dict[str, Any]]:
    """Turn a batch's outputs into predictions.

    Args:
        outputs: what the network gives for `preprocess(...).arrays`.
        sizes: `preprocess(...).sizes`.

    Returns:
        One prediction a sample, in its own coordinates, as `describe` of its kind of data says; for images of one class
        {"class", "score", "scores"}.
    """
    kind = kind_of(card)
    results = kind.decode(card, outputs, sizes)
    return [kind.describe(card, result, size) for result, size in zip(results, sizes, strict=True)]

"""`Predictor`: predictions of a run or of an exported network, in batches, of several views, tiles or networks."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from src.kit.errors import UserError, refuse_url
from src.kit.inference.batches import Batch, Size, View, kind_of, size_of
from src.kit.inference.card import Card
from src.kit.inference.drift import Drift

BATCH = 32
AS_IS = View()

Compute = Callable[[np.ndarray], np.ndarray]  # float32 (B, C, H, W) -> the network's outputs


class Result(NamedTuple):
    """What is known of a sample before the uncertain is dropped: see `Kind.decode`."""

    values: np.ndarray
    size: Size


class Predictor(ABC):
    """A network that predicts; subclasses compute its outputs.

    Attributes:
        concurrent: whether several threads may predict at once.
        card: what the network takes and gives.
        views: every image is predicted in each of these, and the results are fused; see `use_views`.
        drift: takes note of what is predicted, if it is set.
        tile: images are predicted in overlapping tiles of so many pixels a side; 0: whole. See `use_tiles`.
    """

    concurrent = False

    def __init__(self, card: Card) -> None:
        self.card = card
        self.kind = kind_of(card)
        self.views: Sequence[View] = (AS_IS,)
        self.tile = 0
        self.drift: Drift | None = None

    @staticmethod
    def open(path: str | Path, threads: int | None = None) -> "Predictor":
        """Open a run folder, an export folder or an .onnx file of one.

        Args:
            threads: of ONNX Runtime; None: one per core.

        Raises:
            UserError: neither of them, or a damaged one.
        """
        refuse_url(path)
        path = Path(path)
        opened: Predictor
        if path.suffix == ".onnx" or any((path / name).is_file() for name in ("model.onnx", "model.xml")):
            opened = import_module("src.kit.inference.exported").open_exported(path, threads)
            return opened
        if not path.is_dir():
            wrong = "is a file" if path.exists() else "does not exist"
            raise UserError(f"{path} {wrong}: give the folder of a run or of an export.")
        # by name: prediction without a framework must not import it
        opened = import_module("src.kit.training").RunPredictor(path)
        return opened

    @abstractmethod
    def compute(self, arrays: np.ndarray) -> np.ndarray:
        """The network's outputs for float32 (B, *card.input["shape"])."""

    def predict(self, inputs: Iterable[Any], batch_size: int = BATCH) -> list[dict[str, Any]]:
        """One prediction for each input; see `preprocess` and `postprocess`.

        Raises:
            UserError: an input that cannot be read.
        """
        batches = batched(inputs, batch_size)
        return [found for sources in batches for found in self.predict_items([self.read(each) for each in sources])]

    def read(self, source: Any) -> Any:
        """Load one input into memory, for `predict_items`. Safe to call from several threads at once."""
        return self.kind.read(self.card, source)

    def predict_items(self, items: Sequence[Any]) -> list[dict[str, Any]]:
        """Predictions for one batch of what `read` returns."""
        if self.tile:
            return [self.predict_tiles(item) for item in items]
        found = [self.kind.describe(self.card, *result) for result in self.results(items)]
        if self.drift:
            self.drift.hear(found)
        return found

    def predict_tiles(self, item: Any) -> dict[str, Any]:
        """The prediction for one image, from its tiles."""
        kind: Any = self.kind  # a `PlacedKind`, as `use_tiles` has checked
        places, tiles = kind.cut(item, self.tile)
        results = [result.values for part in batched(tiles, BATCH) for result in self.results(part)]
        prediction: dict[str, Any] = kind.join(self.card, results, places, size_of(item))
        return prediction

    def results(self, items: Sequence[Any]) -> list[Result]:
        """One result a sample, in its own coordinates."""
        batch = self.kind.prepare(self.card, items)
        if self.drift:
            self.drift.look(batch)
        return predict_views(self.card, self.views, self.compute, batch)

    def use_views(self) -> None:
        """Predict each image in the views that `choose_views` names; raises what it does."""
        self.views = choose_views(self.card)

    def use_tiles(self, side: int = 0) -> None:
        """Predict objects and class maps in overlapping tiles, so that small ones are not lost in large images.

        Args:
            side: of a tile in the image's pixels; 0: as the network's input, which then sees every pixel.

        Raises:
            UserError: the network predicts one class for the whole.
        """
        if not hasattr(self.kind, "cut"):
            raise UserError(f"Tiles are for objects and class maps, not for task={self.card.task}: leave --tile out.")
        self.tile = side or self.card.input["shape"][1]

    def set_output(self, **values: Any) -> None:
        """Replace keys of the card's `output`, such as `score`, the least that is reported of an object."""
        self.card = replace(self.card, output={**self.card.output, **values})


def choose_views(card: Card) -> Sequence[View]:
    """An image as it is and mirrored, or shifted by 1/32 of its size in four directions.

    It is shifted where a mirrored image would show something else, such as a digit.

    Raises:
        UserError: the network takes no images, or images that are too small to be shifted.
    """
    shape = card.input["shape"]
    if len(shape) != 3:
        raise UserError("Only images have several views: leave --tta out.")
    step = shape[2] // 32
    shifts = [View(right=step), View(right=-step), View(down=step), View(down=-step)]
    if not step and not card.input["flippable"]:
        raise UserError(f"Images of {shape[2]} pixels have one view, as they cannot be mirrored: leave --tta out.")
    return (AS_IS, View(mirror=True)) if card.input["flippable"] else (AS_IS, *shifts)


def predict_views(card: Card, views: Sequence[View], compute: Compute, batch: Batch) -> list[Result]:
    """One result a sample, fused of all views, in its own coordinates."""
    kind: Any = kind_of(card)
    decoded = []
    for view in views:
        outputs = compute(view.apply(batch.arrays) if view != AS_IS else batch.arrays)
        if view != AS_IS and hasattr(kind, "undo"):
            outputs = kind.undo(card, outputs, view, batch.arrays.shape[-1])
        decoded.append(kind.decode(card, outputs, batch.sizes))
    return fuse(card, decoded, batch.sizes)


def fused_outputs(card: Card, views: Sequence[View], compute: Compute, arrays: np.ndarray) -> np.ndarray:
    """What a network that saw all views at once would give for images float32 (B, C, H, W), for a task to collect.

    Returns:
        Logits whose softmax is the fused probabilities; or fused rows of objects (B, D, 6 or more), where empty ones
        fill up those of an image.
    """
    results = predict_views(card, views, compute, Batch(arrays, [arrays.shape[2:]] * len(arrays)))
    if "score" not in card.output:
        return np.asarray(np.log(np.maximum([result.values for result in results], np.finfo(np.float32).tiny)))
    rows = np.zeros((len(results), max(len(result.values) for result in results), results[0].values.shape[1]), "f4")
    for row, result in zip(rows, results, strict=True):
        row[: len(result.values)] = result.values
    return rows


def fuse(card: Card, results: Sequence[Sequence[np.ndarray]], sizes: Sequence[Size]) -> list[Result]:
    """Fuse the results that several views or networks gave for each sample."""
    kind = kind_of(card)
    whole = [each[0] if len(each) == 1 else kind.fuse(card, each) for each in zip(*results, strict=True)]
    return [Result(values, size) for values, size in zip(whole, sizes, strict=True)]


class Ensemble(Predictor):
    """Several networks for the same classes, whose results are fused: means of scores, or fused boxes."""

    def __init__(self, members: Sequence[Predictor]) -> None:
        """Raises UserError if the networks predict something else or other classes."""
        super().__init__(members[0].card)
        self.members = members
        cards = [member.card for member in members]
        for card in cards[1:]:
            if (card.kind, card.output["kind"]) != (self.card.kind, self.card.output["kind"]):
                raise UserError(f"An ensemble is of one task, not of {self.card.task} and {card.task}.")
            if card.classes != self.card.classes:
                pairs = itertools.zip_longest(self.card.classes, card.classes)
                one, other = next((one, other) for one, other in pairs if one != other)
                raise UserError(f"An ensemble is of networks for the same classes: {one!r} is {other!r} in another.")
        self.alike = all(what_reads(card) == what_reads(self.card) for card in cards)

    def compute(self, arrays: np.ndarray) -> np.ndarray:
        raise NotImplementedError("each member computes its own")

    def read(self, source: Any) -> Any:
        """What the members read of one input: one item if they read alike, or else one for each."""
        return super().read(source) if self.alike else [member.read(source) for member in self.members]

    def results(self, items: Sequence[Any]) -> list[Result]:
        """One result a sample, of all members."""
        columns = [items] * len(self.members) if self.alike else list(zip(*items, strict=True))
        found = [member.results(column) for member, column in zip(self.members, columns, strict=True)]
        return fuse(self.card, [[each.values for each in part] for part in found], [each.size for each in found[0]])

    def use_views(self) -> None:
        """As `Predictor.use_views`, for each member."""
        for member in self.members:
            member.use_views()


def what_reads(card: Card) -> Any:
    """The parts of a card that decide what is read of a file."""
    return card.input.get("pixels"), card.input["shape"] if card.kind == "images" else None


def batched(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of `size` items, the last one shorter; read only as far as needed."""
    iterator = iter(items)
    while part := list(itertools.islice(iterator, size)):
        yield part

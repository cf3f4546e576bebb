"""`Predictor`: predictions of a run or of an exported network, in batches."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from src.kit.errors import UserError
from src.kit.inference.batches import Batch, kind_of
from src.kit.inference.card import Card, read_card

BATCH = 32


class Predictor(ABC):
    """A network that predicts; subclasses compute its outputs. Not for several threads at once."""

    def __init__(self, card: Card) -> None:
        self.card = card
        self.kind = kind_of(card)

    @staticmethod
    def open(path: str | Path, threads: int | None = None) -> "Predictor":
        """Open a run folder, an export folder or an .onnx file of one.

        Args:
            threads: of ONNX Runtime; None: one per core.

        Raises:
            UserError: neither of them, or a damaged one.
        """
        path = Path(path)
        if path.suffix == ".onnx" or (path / "model.onnx").is_file():
            return OnnxPredictor(path, threads)
        if not path.is_dir():
            raise UserError(f"{path} does not exist: give the folder of a run or of an export.")
        # by name: prediction without a framework must not import it
        opened: Predictor = import_module("src.kit.training").RunPredictor(path)
        return opened

    @abstractmethod
    def compute(self, arrays: np.ndarray) -> np.ndarray:
        """The network's outputs for float32 (B, *card.input["shape"])."""

    def predict(self, inputs: Iterable[Any], batch_size: int = BATCH) -> list[dict[str, Any]]:
        """One prediction for each input; see `preprocess` and `postprocess`.

        Raises:
            UserError: an input that cannot be read.
        """
        predictions = []
        for items in batched(inputs, batch_size):
            batch = self.kind.prepare(self.card, [self.kind.read(self.card, source) for source in items])
            for result, size in zip(self.results(batch), batch.sizes, strict=True):
                predictions.append(self.kind.describe(self.card, result, size))
        return predictions

    def results(self, batch: Batch) -> list[np.ndarray]:
        """One array a sample, in its own coordinates, before the uncertain is dropped."""
        return self.kind.decode(self.card, self.compute(batch.arrays), batch.sizes)

    def set_output(self, **values: Any) -> None:
        """Replace keys of the card's `output`, such as `score`, the least that is reported of an object."""
        self.card = replace(self.card, output={**self.card.output, **values})


class OnnxPredictor(Predictor):
    """A network exported to ONNX, computed by ONNX Runtime."""

    def __init__(self, path: Path, threads: int | None = None) -> None:
        """`path`: a folder that holds model.onnx, or an .onnx file; card.json lies beside it.

        Raises:
            UserError: a missing or damaged file, or ONNX Runtime is not installed.
        """
        file = path if path.suffix == ".onnx" else path / "model.onnx"
        super().__init__(read_card(file.parent))
        try:
            import onnxruntime
        except ModuleNotFoundError as error:
            raise UserError("onnxruntime is not installed: run `pip install onnxruntime`.") from error
        if not file.is_file():
            raise UserError(f"There is no {file}: export the run first.")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's own classes have no common base
            raise UserError(f"{file} cannot be loaded ({first_line(error)}): export the run again.") from error
        (self.input,) = self.session.get_inputs()
        self.fixed = self.input.shape[0] if isinstance(self.input.shape[0], int) else 0  # batch size of a static export

    def compute(self, arrays: np.ndarray) -> np.ndarray:
        parts = np.split(arrays, range(self.fixed, len(arrays), self.fixed)) if self.fixed else [arrays]
        outputs = []
        for part in parts:
            short = self.fixed - len(part) if self.fixed else 0
            whole = np.concatenate([part, np.repeat(part[-1:], short, axis=0)]) if short else part
            outputs.append(self.session.run(None, {self.input.name: whole})[0][: len(part)])
        return np.concatenate(outputs)


def batched(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of `size` items, the last one shorter; read only as far as needed."""
    iterator = iter(items)
    while part := list(itertools.islice(iterator, size)):
        yield part


def first_line(error: Exception) -> str:
    """The first line of a library's message."""
    return str(error).strip().partition("\n")[0][:200]

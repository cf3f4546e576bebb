"""`Predictor`: predictions of a run or of an exported network, in batches."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
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
        self.sessions = {"model": open_session(file, threads)}
        self.detector = self.card.output.get("detector")
        if self.detector:  # a network in parts, which NumPy joins
            self.sessions |= {
                part: open_session(file.parent / f"{part}.onnx", threads) for part in self.detector["parts"]
            }
        (self.input,) = self.sessions["model"].get_inputs()
        self.fixed = self.input.shape[0] if isinstance(self.input.shape[0], int) else 0  # batch size of a static export

    def compute(self, arrays: np.ndarray) -> np.ndarray:
        if self.detector:
            rows: np.ndarray = import_module(f"src.kit.inference_{self.card.kind}_detectors").detect(
                self.run, arrays, self.detector
            )
            return rows
        return np.asarray(self.run("model", {self.input.name: arrays})[0])

    def run(self, part: str, arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """All outputs of one part; a part with a fixed batch computes as often as it takes."""
        if part != "model" or not self.fixed:
            return list(self.sessions[part].run(None, dict(arrays)))
        (whole,) = arrays.values()
        outputs = []
        for start in range(0, len(whole), self.fixed):
            rows = whole[start : start + self.fixed]
            filled = np.concatenate([rows, np.repeat(rows[-1:], self.fixed - len(rows), axis=0)])
            outputs.append([each[: len(rows)] for each in self.sessions[part].run(None, {self.input.name: filled})])
        return [np.concatenate(parts) for parts in zip(*outputs, strict=True)]


def open_session(file: Path, threads: int | None) -> Any:
    """Load an .onnx file for the CPU.

    Raises:
        UserError: a missing or damaged file, or ONNX Runtime is not installed.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise UserError("onnxruntime is not installed: run `pip install onnxruntime`.") from error
    if not file.is_file():
        raise UserError(f"There is no {file}: export the run first.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # waiting threads leave the cores alone
    try:
        return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own classes have no common base
        raise UserError(f"{file} cannot be loaded ({first_line(error)}): export the run again.") from error


def batched(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of `size` items, the last one shorter; read only as far as needed."""
    iterator = iter(items)
    while part := list(itertools.islice(iterator, size)):
        yield part


def first_line(error: Exception) -> str:
    """The first line of a library's message."""
    return str(error).strip().partition("\n")[0][:200]

"""Networks in files, computed by ONNX Runtime or OpenVINO."""

from abc import abstractmethod
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from src.kit.errors import UserError
from src.kit.inference.card import parse_card, read_card
from src.kit.inference.predictor import Predictor


def open_exported(path: Path, threads: int | None = None) -> Predictor:
    """Open an .onnx file, or a folder with model.onnx or model.xml; `threads`: None for the card's, or one per core."""
    return OpenVinoPredictor(path, threads) if (path / "model.xml").is_file() else OnnxPredictor(path, threads)


class ExportedPredictor(Predictor):
    """A network in files; a subclass runs its parts. `fixed`: the batch that "model" was compiled for, or 0 for any."""

    fixed = 0

    @abstractmethod
    def run(self, part: str, arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """All outputs of one part, such as "model", which takes "input"."""

    def compute(self, arrays: np.ndarray) -> np.ndarray:
        if not (detector := self.card.output.get("detector")):
            return np.asarray(self.run_model(arrays)[0])
        detectors = import_module(f"src.kit.inference_{self.card.kind}_detectors")

        def run(part: str, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
            return self.run_model(inputs["input"]) if part == "model" else self.run(part, inputs)

        return np.asarray(detectors.detect(run, arrays, detector))

    def run_model(self, arrays: np.ndarray) -> list[np.ndarray]:
        """Part "model", as often as its fixed batch requires."""
        if not self.fixed or len(arrays) == self.fixed:
            return self.run("model", {"input": arrays})
        outputs = []
        for start in range(0, len(arrays), self.fixed):
            rows = arrays[start : start + self.fixed]
            filled = np.concatenate([rows, np.repeat(rows[-1:], self.fixed - len(rows), axis=0)])
            outputs.append([each[: len(rows)] for each in self.run("model", {"input": filled})])
        return [np.concatenate(parts) for parts in zip(*outputs, strict=True)]


class OnnxPredictor(ExportedPredictor):
    """A network exported to ONNX, computed by ONNX Runtime."""

    concurrent = True

    def __init__(self, path: Path, threads: int | None = None) -> None:
        """`path`: a folder that holds model.onnx, or an .onnx file; its card is in it, or beside it as card.json.

        Raises:
            UserError: a missing or damaged file, or ONNX Runtime is not installed.
        """
        file = path if path.suffix == ".onnx" else path / "model.onnx"
        beside = file.name == "model.onnx" and (file.parent / "card.json").is_file()
        card = read_card(file.parent) if beside else None
        threads = threads or (card.runtime.get("threads") if card else None)
        model = open_session(file, threads)
        if card is None:
            text = model.get_modelmeta().custom_metadata_map.get("card")
            card = parse_card(text, str(file)) if text else read_card(file.parent)
        super().__init__(card)
        self.sessions = {"model": model}
        for part in self.card.output.get("detector", {}).get("parts", ()):
            self.sessions[part] = open_session(file.parent / f"{part}.onnx", threads)
        (self.input,) = model.get_inputs()
        self.fixed = self.input.shape[0] if isinstance(self.input.shape[0], int) else 0

    def run(self, part: str, arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        if part == "model":
            arrays = {self.input.name: arrays["input"]}
        return list(self.sessions[part].run(None, dict(arrays)))


class OpenVinoPredictor(ExportedPredictor):
    """A network as OpenVINO's model.xml and model.bin; the card's `runtime` says how it is compiled."""

    def __init__(self, path: Path, threads: int | None = None) -> None:
        """`path`: a folder with card.json.

        Raises:
            UserError: a missing or damaged file, or OpenVINO is not installed.
        """
        super().__init__(read_card(path))
        try:
            import openvino
        except ModuleNotFoundError as error:
            raise UserError("openvino is not installed: run `pip install -r requirements-edge.txt`.") from error
        core, runtime = openvino.Core(), self.card.runtime
        options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads or runtime["threads"]}
        options["INFERENCE_PRECISION_HINT"] = runtime["precision"]
        self.fixed, self.requests = runtime["batch"], {}
        for part in ("model", *self.card.output.get("detector", {}).get("parts", ())):
            try:
                model = core.read_model(path / f"{part}.xml")
            except RuntimeError as error:
                raise UserError(f"{path / part}.xml cannot be loaded ({first_line(error)}): optimize again.") from error
            if part == "model":
                model.reshape([self.fixed or -1, *self.card.input["shape"]])
            self.requests[part] = core.compile_model(model, "CPU", options).create_infer_request()

    def run(self, part: str, arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        results = self.requests[part].infer(list(arrays.values()) if part == "model" else dict(arrays))
        return [np.array(value) for value in results.values()]


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
    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # waiting threads leave the cores alone
    try:
        return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own classes have no common base
        raise UserError(f"{file} cannot be loaded ({first_line(error)}): export the run again.") from error


def first_line(error: Exception) -> str:
    """The first line of a library's message."""
    return str(error).strip().partition("\n")[0][:200]

"""A run's network: ready to predict, or as files that run without the project, checked against it.

A network whose forward chooses by values, such as a detector, cannot be one graph. It has a method
`export_parts(shape)`, which returns its parts, name -> (module, shape of its input, function that completes the .onnx
file or None), and the settings of the code that joins them.
"""

import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from src.kit.config import UserError, load_config
from src.kit.edge import convert, embed_card
from src.kit.inference import Batch, Card, Predictor, read_card, refer
from src.kit.loading import BatchLoader
from src.kit.storage import partial_path, sort_paths
from src.kit.training.cards import find_card
from src.kit.training.checkpoints import find_checkpoint
from src.kit.training.evaluation import load_backend, load_experiment, newest_run, own_engine
from src.kit.training.experiment import Experiment

FORMATS = {"lightning": ("onnx", "torch"), "paddle": ("onnx", "paddle")}  # framework -> what it can write
TOLERANCE = 1e-3  # of the largest output
REFERENCE, LEAST, REFERENCE_S = 1000, 128, 5  # samples whose features drift is seen in, or as many as 5 s allow
BATCH = 32  # of them
CALIBRATION = 128  # training samples that INT8 is calibrated with


class RunPredictor(Predictor):
    """The network of a run, computed by its framework."""

    def __init__(
        self, run: Path, checkpoint: str = "best", image_size: int | None = None, on_cpu: bool = False
    ) -> None:
        """Load the weights.

        Args:
            checkpoint: best, last or a checkpoint's name.
            image_size: another side than the one in training, for networks that take any.
            on_cpu: compute there even if the run's `trainer.accelerator` leads to a GPU.

        Raises:
            UserError: no such run or checkpoint.
        """
        self.weights = find_checkpoint(run, checkpoint)
        card = find_card(run, self.weights)
        if image_size:
            shape = [card.input["shape"][0], image_size, image_size]
            card = replace(card, input={**card.input, "shape": shape})
        super().__init__(card)
        self.cfg = load_config([], base=run / "config.yaml")
        if on_cpu:
            self.cfg.trainer.accelerator = "cpu"
        self.backend = load_backend(self.cfg)
        self.network = self.backend.load_network(Experiment.from_card(self.cfg, card), self.weights)

    def compute(self, arrays: np.ndarray) -> np.ndarray:
        outputs: np.ndarray = self.backend.predict_images(self.network, arrays)
        return outputs


def export_command(run: Path | None, format: str = "", int8: bool = False, checkpoint: str = "best") -> Path:
    """Export a run, or the newest, and print what was written; return the folder.

    Args:
        format: names of `FORMATS`, separated by commas; empty: all.

    Raises:
        UserError: a format that does not exist, or a network that cannot be exported.
    """
    run = run or newest_run(Path("outputs"))
    folder, difference = export_run(run, [name for name in format.split(",") if name], checkpoint)
    if difference is not None:
        sys.stdout.write(f"model.onnx differs from the run by at most {difference:.1e} of the largest output\n")
    scores = quantize_run(run, folder) if int8 else {}
    for path in sort_paths(path for path in folder.rglob("*") if path.is_file()):
        sys.stdout.write(f"{path}  {path.stat().st_size / 1e6:,.{2 if path.stat().st_size >= 1e4 else 3}f} MB\n")
    for name, values in scores.items():
        sys.stdout.write(f"{name:<8}" + "".join(f"  {score} {value:.4f}" for score, value in values.items()) + "\n")
    return folder


def export_run(
    run: Path,
    formats: Sequence[str] = (),
    checkpoint: str = "best",
    image_size: int | None = None,
    target: Path | None = None,
    reference: bool = True,
) -> tuple[Path, float | None]:
    """Write the network, its weights and card.json to `target` (`RUN/export`), which is replaced as a whole.

    Args:
        formats: of `FORMATS` of the run's framework; none: all.
        image_size: another side than the one in training, for networks that take any.
        reference: whether the card tells what the data look like, from which drift is seen.

    Returns:
        The folder, and the largest difference between the ONNX file's outputs and the run's, as a share of the largest
        output (None without ONNX).

    Raises:
        UserError: an unknown format, a network that cannot be exported, or one whose outputs differ.
    """
    formats = check_formats(load_config([], base=run / "config.yaml"), formats)
    # what torch.export writes stays on its device, and a GPU's TF32 is further from ONNX Runtime than TOLERANCE
    predictor = RunPredictor(run, checkpoint, image_size, on_cpu=True)
    size = [f"data.image_size={image_size}"] if image_size else []
    known = predictor.card.input  # a graph takes one shape, whatever data.rectangular says
    predictor.card = replace(predictor.card, input={key: known[key] for key in known if key != "rectangular"})
    card, cfg = predictor.card, predictor.cfg
    target = target or run / "export"
    partial = partial_path(target)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        probe = probe_inputs(card)
        expected = np.asarray(predictor.compute(probe))
        if detector := export_network(predictor.network, cfg.framework, card.input["shape"], partial, formats):
            card = replace(card, output={**card.output, "detector": detector})
        card = replace(card, weights={**card.weights, "run": run.as_posix()})
        card = replace(card, reference=describe_data(load_experiment(run, size), predictor) if reference else {})
        shutil.copyfile(predictor.weights / "model.safetensors", partial / "model.safetensors")
        card.write(partial)
        difference = None
        if "onnx" in formats:
            embed_card(partial / "model.onnx", card)
            difference = compare(expected, Predictor.open(partial).compute(probe))
        shutil.rmtree(target, ignore_errors=True)
        partial.replace(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target, difference


def check_formats(cfg: DictConfig, formats: Sequence[str]) -> Sequence[str]:
    """The formats, or all that the framework has.

    Raises:
        UserError: a format or a model that cannot be exported.
    """
    if own_engine(cfg):
        raise UserError(f"model={cfg.model.name} has no format to export: its model.safetensors needs no framework.")
    known = FORMATS[cfg.framework]
    if unknown := [name for name in formats if name not in known]:
        raise UserError(f"framework={cfg.framework} cannot export {unknown[0]!r}: choose of {', '.join(known)}.")
    return formats or known


def export_network(
    network: Any, framework: str, shape: Sequence[int], folder: Path, formats: Sequence[str] = ("onnx",)
) -> dict[str, Any]:
    """Write `folder/model.*` and, for a network in parts, `folder/<part>.*`.

    Args:
        network: on the CPU.
        shape: (C, H, W) of its input; the batch may have any size.
        formats: of `FORMATS`.

    Returns:
        The card's `output["detector"]`: how the parts are joined. Empty if there is one part.

    Raises:
        UserError: the framework cannot export the network.
    """
    export_part = import_module(f"src.kit.{framework}.onnx_export").export_part
    network.eval()
    in_parts = hasattr(network, "export_parts")
    parts, detector = network.export_parts(shape) if in_parts else ({"model": (network, shape, None)}, {})
    for name, (module, part_shape, finish) in parts.items():
        export_part(module, part_shape, folder, name, formats)
        if finish and "onnx" in formats:
            finish(folder / f"{name}.onnx")
    return {**detector, "parts": [name for name in parts if name != "model"]} if detector else {}


def probe_inputs(card: Card) -> np.ndarray:
    """Three made-up inputs float32 (3, *shape): noise, and valid codes for categories."""
    generator = np.random.default_rng(0)
    values = generator.standard_normal((3, *card.input["shape"]), dtype=np.float32)
    for place, count in enumerate(reversed(card.network.get("cardinalities", ())), 1):
        values[:, -place] = generator.integers(0, count, len(values))
    return values


def compare(expected: np.ndarray, outputs: np.ndarray) -> float:
    """The largest difference, as a share of the largest output; of detections, that of the sorted scores.

    Raises:
        UserError: it is larger than rounding explains.
    """
    rows = expected.ndim == 3 and outputs.ndim == 3  # x1, y1, x2, y2, score, class: equal scores change their order
    one, other = (np.sort(array[..., 4]) if rows else array for array in (expected, outputs))
    difference = float(np.abs(one - other).max() / max(1e-6, np.abs(one).max()))
    if not difference < TOLERANCE:
        raise UserError(
            f"The exported network differs from the run by {difference:.1e} of the largest output: please report which "
            "model it is, and use the run itself."
        )
    return difference


def quantize_run(run: Path, folder: Path) -> dict[str, dict[str, float]]:
    """Write `folder`/int8, and return the scores of both on the validation split, by name.

    Raises:
        UserError: the data are missing, or there is no ONNX file.
    """
    experiment = load_experiment(run)
    card, target = read_card(folder), folder / "int8"
    shutil.rmtree(target, ignore_errors=True)
    convert(folder / "model.onnx", card, target, "onnxruntime", "int8", training_batches(experiment, card))
    return {name: score(experiment, Predictor.open(place)) for name, place in (("float32", folder), ("int8", target))}


def training_batches(experiment: Experiment, card: Card) -> list[np.ndarray]:
    """Inputs of `CALIBRATION` training samples, spread over the split and not augmented."""
    dataset = experiment.split("train")
    chosen = dataset.take(np.linspace(0, len(dataset) - 1, min(CALIBRATION, len(dataset))).astype(int))
    shape = card.input["shape"]
    loader = build_loader(experiment, card, "val", chosen)
    return [np.array(images, np.float32).reshape(-1, *shape) for images, *_ in loader]


def describe_data(experiment: Experiment, predictor: Predictor) -> dict[str, Any]:
    """The card's `reference`: of random training samples, and of what is predicted for validation samples.

    Without the data, it is empty and a note says so.
    """
    card, kind = predictor.card, predictor.kind
    try:
        inputs, held_out = (draw_batches(experiment, split, predictor) for split in ("train", "val"))
        decoded = ((batch, kind.decode(card, predictor.compute(batch.arrays), batch.sizes)) for batch in held_out)
        predicted = (
            kind.describe(card, *result)
            for batch, values in decoded
            for result in zip(values, batch.sizes, strict=True)
        )
        return refer(card, inputs, predicted)
    except UserError as error:
        sys.stderr.write(f"note: the export will not tell drift, as its data cannot be read: {error}\n")
        return {}


def draw_batches(experiment: Experiment, split: str, predictor: Predictor) -> Iterator[Batch]:
    """Batches of random samples of a split, not augmented: `REFERENCE`, or as many as `REFERENCE_S` allow."""
    dataset, shape = experiment.split(split), predictor.card.input["shape"]
    order = np.random.default_rng(0).permutation(len(dataset))[:REFERENCE]
    size, seen, end = (shape[1], shape[2]) if len(shape) == 3 else (1, 1), 0, time.monotonic() + REFERENCE_S
    if files := dataset.sources(order):
        parts = (files[start : start + BATCH] for start in range(0, len(files), BATCH))
        batches = (predictor.kind.prepare(predictor.card, [predictor.read(file) for file in part]) for part in parts)
    else:
        loader = build_loader(experiment, predictor.card, "val", dataset.take(order))
        loaded = (np.array(images, np.float32).reshape(-1, *shape) for images, *_ in loader)
        batches = (Batch(arrays, [size] * len(arrays)) for arrays in loaded)
    for batch in batches:
        yield batch
        seen += len(batch.sizes)
        if seen >= LEAST and time.monotonic() > end:
            return


def build_loader(experiment: Experiment, card: Card, split: str, dataset: Any = None) -> BatchLoader:
    """`Experiment.build_loader` of the shapes that the card's network takes: squares, unless it is `rectangular`."""
    fitting = copy(experiment)
    if "rectangular" in fitting.cfg.data and not card.input.get("rectangular"):
        fitting.cfg = OmegaConf.merge(fitting.cfg, {"data": {"rectangular": "none"}})
    return fitting.build_loader(split, dataset=dataset)


def score(experiment: Experiment, predictor: Predictor, split: str = "val") -> dict[str, float]:
    """The scores of an exported network on a split, computed as in training."""
    collected: list[Any] = []
    for images, *targets in build_loader(experiment, predictor.card, split):
        arrays = np.asarray(images, np.float32).reshape(-1, *predictor.card.input["shape"])
        collected += experiment.task.collect(predictor.compute(arrays), *targets)
    return experiment.score(collected)

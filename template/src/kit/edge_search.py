"""`scripts/optimize_for_edge.py`: try runtimes, precisions, threads and batches on this machine, and keep the best.

Nothing is assumed: which precision is fastest depends on the network and the processor. A candidate whose score falls
by more than `--max-loss` is out.
"""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from src.kit.config import UserError
from src.kit.edge import convert, embed_card, fix_batch, quantize, set_runtime, write_tensorrt
from src.kit.hardware import SystemProbe
from src.kit.inference import Card, Predictor, preprocess
from src.kit.loading import find_images
from src.kit.storage import write_csv, write_json
from src.kit.training import CALIBRATION, export_run, load_experiment, newest_run, score, training_batches

__all__ = ["Candidate", "measure", "optimize_command"]

SECONDS = 1.0  # of measuring each candidate
ROUNDS = 5
MEMORY = """
import sys
import numpy as np
from src.kit.hardware import peak_mib
from src.kit.inference import Predictor
predictor = Predictor.open(sys.argv[1])
for _ in range(3):
    predictor.compute(np.zeros((int(sys.argv[2]), *predictor.card.input["shape"]), np.float32))
print(peak_mib())
"""


@dataclass
class Candidate:
    """One way to run the network, and what was measured of it."""

    folder: Path = field(repr=False)
    runtime: str  # onnxruntime or openvino
    precision: str  # f32, bf16 or int8
    threads: int
    batch: int
    megabytes: float = 0.0
    score: float | None = None  # the task's monitored score, or the share of equal predictions
    milliseconds: float = 0.0  # median of a batch
    p95: float = 0.0
    cpu: float = 0.0  # median processor time of a batch in ms, over all threads: other work does not change it
    per_second: float = 0.0
    fits: bool = True  # whether it keeps the score

    def figures(self) -> dict[str, Any]:
        """All but the folder."""
        return {name: value for name, value in asdict(self).items() if name != "folder"}


@dataclass(frozen=True)
class Material:
    """What candidates are calibrated and judged with."""

    card: Card
    batches: list[np.ndarray]  # float32 (B, *shape)
    judge: Callable[[Predictor], float]
    better: int  # 1 if a higher score is better, else -1
    name: str  # of the score


def optimize_command(
    run: Path | None = None,
    model_path: Path | None = None,
    target_device: str = "cpu",
    quantization: str = "int8",
    input_size: str | None = None,
    batch_size: str = "1",
    calibration: Path | None = None,
    max_loss: float = 0.01,
    output: Path | None = None,
) -> Path:
    """Optimize a run's network, and print the table; return the folder that was written.

    Args:
        run, ...: the options of `scripts/optimize_for_edge.py`, as they are written there.

    Raises:
        UserError: a bad option, or what `export_run` raises.
    """
    size = read_size(input_size)
    batches = read_batches(batch_size)
    with TemporaryDirectory() as scratch:
        model = find_model(run, model_path, size, Path(scratch))
        folder = output or default_output(run, model_path, target_device)
        material = gather(Predictor.open(model).card, calibration)
        int8 = quantization == "int8"
        if target_device == "cpu":
            return optimize_here(model, material, int8, batches, max_loss, folder, Path(scratch))
        return prepare_jetson(model, material, target_device, int8, batches[0], folder)


def read_size(text: str | None) -> int | None:
    """`320x320` -> 320.

    Raises:
        UserError: anything but a square of at least 8 pixels.
    """
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(set(sides)) != 1 or len(sides) > 2 or not sides[0].isdecimal() or int(sides[0]) < 8:
        raise UserError(f"--input-size {text} is not a square such as 320x320: networks here take square images.")
    return int(sides[0])


def read_batches(text: str) -> list[int]:
    """`1,8` -> [1, 8].

    Raises:
        UserError: anything else.
    """
    if not all(part.isdecimal() and 0 < int(part) <= 1024 for part in text.split(",")):
        raise UserError(f"--batch-size {text} must be a number from 1 to 1024, or several, such as 1,8.")
    return [int(part) for part in text.split(",")]


def find_model(run: Path | None, file: Path | None, size: int | None, scratch: Path) -> Path:
    """The .onnx file to optimize; a run is exported first if it has not been, or not at this size.

    Raises:
        UserError: no such file, or one of another size.
    """
    if file is None:
        run = run or newest_run(Path("outputs"))
        if size is None and (run / "export" / "model.onnx").is_file():
            return run / "export" / "model.onnx"
        return export_run(run, ["onnx"], image_size=size, target=scratch / "export" if size else None)[0] / "model.onnx"
    if run is not None:
        raise UserError(f"Give either the run {run} or --model-path {file}.")
    card = Predictor.open(file).card
    shape, origin = card.input["shape"], card.weights.get("run", "RUN")
    if size is not None and shape[-1] != size:
        raise UserError(
            f"{file} takes images of {shape[-1]} pixels, not {size}: give the run ({origin}) in place of --model-path, "
            "which is then exported at that size."
        )
    return file


def default_output(run: Path | None, file: Path | None, device: str) -> Path:
    """RUN/edge-DEVICE, or FILE-DEVICE beside the file."""
    if file is not None:
        return file.with_name(f"{file.stem}-{device}")
    return (run or newest_run(Path("outputs"))) / f"edge-{device}"


def gather(card: Card, images: Path | None) -> Material:
    """Calibration data and how candidates are judged: the run's validation split, or agreement on a folder of images.

    Raises:
        UserError: neither is there.
    """
    run = Path(card.weights.get("run") or "unknown")
    if images is None and not (run / "config.yaml").is_file():
        raise UserError(
            f"The run {run} that the network comes from is not here: name a folder of images with --calibration."
        )
    if images is None:
        experiment = load_experiment(run)
        shape = card.input["shape"]
        if len(shape) == 3 and shape[-1] != experiment.cfg.data.image_size:  # exported at another size
            experiment = load_experiment(run, [f"data.image_size={shape[-1]}"])
        metric = experiment.task.monitor.removeprefix("val/")
        better = 1 if experiment.task.mode == "max" else -1
        batches = training_batches(experiment, card)
        return Material(card, batches, lambda predictor: score(experiment, predictor)[metric], better, metric)
    if not (files := find_images(images)):
        raise UserError(f"{images} holds no images: name a folder of some hundred like those of the training.")
    chosen = [files[place] for place in np.linspace(0, len(files) - 1, min(CALIBRATION, len(files))).astype(int)]
    batches = [preprocess(card, chosen[start : start + 8]).arrays for start in range(0, len(chosen), 8)]
    return Material(card, batches, Agreement(batches), 1, "agreement")


class Agreement:
    """Judges by the share of samples whose strongest output is that of the first network asked."""

    def __init__(self, batches: list[np.ndarray]) -> None:
        self.batches, self.expected = batches, np.empty(0)

    def __call__(self, predictor: Predictor) -> float:
        outputs = [predictor.compute(batch) for batch in self.batches]
        # detections: the class of the surest row; class maps: the class of each pixel
        rows = predictor.card.output["kind"] in ("boxes", "masks")
        best = np.concatenate([(each[:, 0, 5] if rows else each.argmax(axis=1)).ravel() for each in outputs])
        if not len(self.expected):
            self.expected = best
        return float((best == self.expected).mean())


def optimize_here(
    model: Path,
    material: Material,
    int8: bool,
    batches: Sequence[int],
    max_loss: float,
    target: Path,
    scratch: Path,
) -> Path:
    """Measure every candidate, print the table, and write the winner's files to `target`."""
    candidates = list(build_candidates(model, material, int8, batches, scratch))
    reference = candidates[0].score or 0.0
    for candidate in candidates:
        candidate.fits = material.better * (reference - (candidate.score or 0.0)) <= max_loss
    measure(candidates)
    best = min((each for each in candidates if each.fits), key=lambda each: each.milliseconds / each.batch)
    keep(best, target)
    write_csv(target / "candidates.csv", [each.figures() for each in candidates])
    memory = memory_of(target, best)
    write_json(target / "optimized.json", {"metric": material.name, **best.figures(), "memory_mb": memory})
    sys.stdout.write(table(candidates, best, material.name))
    sys.stdout.write(f"peak memory of a process that runs it: {memory:,.0f} MB\nwritten: {target}\n")
    return target


def keep(best: Candidate, target: Path) -> None:
    """Write a candidate's files to `target`, with its number of threads on the card."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(best.folder, target)
    set_runtime(target, threads=best.threads)


def build_candidates(
    model: Path, material: Material, int8: bool, batches: Sequence[int], scratch: Path
) -> Iterator[Candidate]:
    """Build each runtime's and precision's files and judge them once; the first is ONNX Runtime in float32."""
    runtimes = ["onnxruntime", *(["openvino"] if find_spec("openvino") and find_spec("nncf") else [])]
    if "openvino" not in runtimes:
        sys.stderr.write("OpenVINO is not installed (`pip install -r requirements-edge.txt`): it is not tried.\n")
    for runtime in runtimes:
        precisions = ["f32", *(["bf16"] if runtime == "openvino" else []), *(["int8"] if int8 else [])]
        for precision in precisions:
            whole = scratch / f"{runtime}-{precision}"
            convert(model, material.card, whole, runtime, precision, material.batches)
            size = sum(path.stat().st_size for path in whole.iterdir() if path.suffix in (".onnx", ".bin"))
            judged = material.judge(Predictor.open(whole))
            for batch in batches:
                folder = Path(shutil.copytree(whole, scratch / f"{whole.name}-{batch}"))
                set_runtime(folder, batch=batch)
                for threads in sorted({1, SystemProbe().cores()}):
                    yield Candidate(folder, runtime, precision, threads, batch, size / 1e6, judged)


def measure(candidates: Sequence[Candidate]) -> None:
    """Time all candidates in turns, so that other work on the machine disturbs all of them alike."""
    times: list[list[tuple[float, float]]] = [[] for _ in candidates]  # on the clock, of the processor
    for _ in range(ROUNDS):
        for candidate, taken in zip(candidates, times, strict=True):
            predictor = Predictor.open(candidate.folder, candidate.threads)
            shape = predictor.card.input["shape"]
            arrays = np.zeros((candidate.batch, *shape), np.float32)
            predictor.compute(arrays)
            end = time.perf_counter() + SECONDS / ROUNDS
            while time.perf_counter() < end or len(taken) < ROUNDS:
                start, used = time.perf_counter(), time.process_time()
                predictor.compute(arrays)
                taken.append((time.perf_counter() - start, time.process_time() - used))
    for candidate, taken in zip(candidates, times, strict=True):
        clock, processor = 1000 * np.array(taken).T
        candidate.milliseconds, candidate.p95 = (float(np.quantile(clock, share)) for share in (0.5, 0.95))
        candidate.cpu = float(np.median(processor))
        candidate.per_second = 1000 * candidate.batch / candidate.milliseconds


def memory_of(folder: Path, candidate: Candidate) -> float:
    """Peak memory in MB of a process that only predicts."""
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", MEMORY, str(folder.resolve()), str(candidate.batch)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    return int(done.stdout) * 2**20 / 1e6


def table(candidates: Sequence[Candidate], best: Candidate, name: str) -> str:
    """The candidates as text of 80 columns, fastest first."""
    width = max(9, len(name) + 1)
    lines = [f"  {'runtime':<12}{'type':<5} threads batch     MB{name:>{width}}  p50 ms  p95 ms  CPU ms     /s"]
    for each in sorted(candidates, key=lambda each: each.milliseconds / each.batch):
        mark = "*" if each is best else " " if each.fits else "-"
        lines.append(
            f"{mark} {each.runtime:<12}{each.precision:<5}{each.threads:>8}{each.batch:>6}{each.megabytes:>7.2f}"
            f"{each.score:>{width}.4f}{each.milliseconds:>8.2f}{each.p95:>8.2f}{each.cpu:>8.2f}{each.per_second:>7.0f}"
        )
    lossy = "" if all(each.fits for each in candidates) else "; -: loses too much"
    return "\n".join(lines) + f"\n*: the fastest that keeps the score{lossy}\n"


def prepare_jetson(model: Path, material: Material, device: str, int8: bool, batch: int, target: Path) -> Path:
    """Write the network with a fixed batch, INT8 as TensorRT reads it, and the script that builds the engine there."""
    if material.card.output.get("detector"):
        raise UserError(
            f"model={material.card.model} is exported in parts, which one TensorRT engine cannot hold: choose another "
            "network."
        )
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    shutil.copyfile(model, target / "model.onnx")
    fix_batch(target / "model.onnx", batch)
    embed_card(target / "model.onnx", material.card)
    material.card.write(target)
    judged = {"float32": material.judge(Predictor.open(target))}
    if int8:
        quantize(target / "model.onnx", target / "model.int8.onnx", fill(material.batches, batch), symmetric=True)
        embed_card(target / "model.int8.onnx", material.card)
        judged["int8"] = material.judge(Predictor.open(target / "model.int8.onnx"))
    script = write_tensorrt(target, device, int8)
    for name, value in judged.items():
        sys.stdout.write(f"{name:<8} {material.name} {value:.4f}, by ONNX Runtime on this machine\n")
    sys.stdout.write(f"written: {target}; run {script.name} on the device (not run here)\n")
    return target


def fill(batches: Sequence[np.ndarray], size: int) -> list[np.ndarray]:
    """The same samples in batches of exactly `size`; what is left over is dropped, fewer than `size` are repeated."""
    samples = np.concatenate(list(batches))
    samples = samples[np.arange(max(size, len(samples))) % len(samples)]
    return [samples[start : start + size] for start in range(0, len(samples) - size + 1, size)]

"""The command: open the networks, find the data, predict in batches and write the results."""

import argparse
import glob
import shutil
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

from src.kit.config import UserError, refuse_url
from src.kit.hardware import SystemProbe, cores
from src.kit.inference import Drift, Ensemble, Predictor, batched
from src.kit.predictions.results import first_lines
from src.kit.predictions.sources import Source
from src.kit.run import new_folder
from src.kit.storage import write_json
from src.kit.training import newest_run

AHEAD = 2  # batches that are read while one is predicted
MODELS = ("model.onnx", "card.json", "checkpoints/index.json", "run.json")  # what a run or an export holds


def predict_command(options: argparse.Namespace) -> Path:
    """Predict what `scripts/predict.py` was given, and return the folder with the results.

    Raises:
        UserError: no such run or data, networks that do not fit each other or the options, or nothing that can be read.
    """
    models, paths = split_paths(options.paths)
    predictor = open_predictor(models, options)
    kind: Any = kind_module(predictor.card.kind)
    sources = kind.find_sources(paths, options, predictor.card)
    first = next(sources, None)  # mistakes in paths are reported before a folder is made
    if first is None:
        raise UserError(f"There is nothing to predict in {', '.join(paths)}.")
    folder = make_folder(options.out)
    started = time.perf_counter()
    with kind.Results(folder, predictor.card, options.pictures) as results:
        results.about = {"networks": [str(model) for model in models], "task": predictor.card.task}
        size = sys.maxsize if getattr(kind, "ALL_AT_ONCE", False) else options.batch
        for read in read_ahead(predictor, prepend(first, sources), size, results.skipped):
            for (source, item), found in zip(read, predictor.predict_items([item for _, item in read]), strict=True):
                results.add(source.name, item, found)
            results.about["seconds"] = time.perf_counter() - started
            show_progress(len(results.records))
    if not results.records:
        shutil.rmtree(folder)
        raise UserError(f"None of the files could be read:\n{first_lines(results.skipped)}")
    if options.label_next:
        results.label_next(options.label_next)
    if results.skipped:
        sys.stderr.write(f"warning: {len(results.skipped):,} could not be read:\n{first_lines(results.skipped)}\n")
    results.about |= tell_drift(predictor)
    about = {**results.about, "predicted": len(results.records), "skipped": results.skipped}
    write_json(folder / "about.json", about)
    return folder


def make_folder(given: Path | None) -> Path:
    """Make the folder for the results.

    Raises:
        UserError: it has files already.
    """
    if given is None:
        return new_folder(Path("outputs"), "predictions")
    refuse_url(given, "--out=")
    folder = given.expanduser()
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise UserError(f"--out={folder} exists already: give a new folder.")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def split_paths(paths: Sequence[str]) -> tuple[list[Path], list[str]]:
    """The runs or exports that the paths begin with, and the data; without a run, the newest one.

    Raises:
        UserError: there is no data after the runs, or a path is a URL.
    """
    for path in paths:
        refuse_url(path)
    count = next((k for k, path in enumerate(paths) if not is_model(Path(path))), len(paths))
    if count == len(paths):
        raise UserError(f"{paths[-1]} is a network: name files, folders or tables to predict after it.")
    if not count and not Path(paths[0]).exists() and not glob.glob(paths[0]):
        raise UserError(f"{paths[0]} does not exist: give a run or an export, then what to predict.")
    models = [Path(path) for path in paths[:count]] or [newest_run(Path("outputs"))]
    return models, list(paths[count:])


def is_model(path: Path) -> bool:
    """Whether a path is a run, an export or an .onnx file."""
    return path.suffix == ".onnx" or any((path / name).is_file() for name in MODELS)


def open_predictor(models: Sequence[Path], options: argparse.Namespace) -> Predictor:
    """Open one network, or several as an ensemble, as the options say."""
    predictors = [Predictor.open(model) for model in models]
    predictor = Ensemble(predictors) if len(predictors) > 1 else predictors[0]
    if options.tta:
        predictor.use_views()
    if options.tile is not None:
        predictor.use_tiles(options.tile)
    if options.score is not None:
        if "score" not in predictor.card.output:
            raise UserError(f"--score is for objects, not for task={predictor.card.task}: leave it out.")
        predictor.set_output(score=options.score)
    if options.label_next and predictor.card.kind != "images":
        raise UserError(f"--label-next is for classes of images, not for task={predictor.card.task}: leave it out.")
    if len(predictors) == 1 and options.tile is None:
        predictor.drift = Drift(predictor.card, None)
    return predictor


def tell_drift(predictor: Predictor) -> dict[str, Any]:
    """Warn of features that differ from the training data's; `drift` for about.json, if there were enough samples."""
    shifts = predictor.drift.shifts() if predictor.drift else {}
    if moved := [f"{name} (PSI {shift.psi:.2f})" for name, shift in shifts.items() if shift.drifted]:
        sys.stderr.write(f"warning: these data differ from the training data: {', '.join(moved)}\n")
    found = {name: {"psi": shift.psi, "limit": shift.limit} for name, shift in shifts.items()}
    return {"drift": found} if found else {}


def kind_module(kind: str) -> Any:
    """The module with `find_sources` and `Results` for a kind of data."""
    return import_module("src.kit.predictions" if kind == "images" else f"src.kit.predictions_{kind}")


def read_ahead(
    predictor: Predictor, sources: Iterable[Source], size: int, skipped: list[str]
) -> Iterator[list[tuple[Source, Any]]]:
    """Batches of sources with what was read of them, read by threads; what cannot be read is added to `skipped`."""

    def read(source: Source) -> tuple[Source, Any] | str:
        try:
            return source, predictor.read(source.load())
        except UserError as error:
            return str(error)

    waiting: deque[list[Future[tuple[Source, Any] | str]]] = deque()
    with ThreadPoolExecutor(cores(SystemProbe())) as pool:
        batches = batched(sources, size)
        while True:
            while len(waiting) <= AHEAD and (batch := next(batches, None)):
                waiting.append([pool.submit(read, source) for source in batch])
            if not waiting:
                return
            found = [future.result() for future in waiting.popleft()]
            skipped += [each for each in found if isinstance(each, str)]
            if kept := [each for each in found if not isinstance(each, str)]:
                yield kept


def prepend(first: Source, rest: Iterator[Source]) -> Iterator[Source]:
    """The first source and the rest."""
    yield first
    yield from rest


def show_progress(count: int) -> None:
    """Show on a terminal how many samples are done, and leave the cursor where the next line overwrites that."""
    if sys.stderr.isatty():
        sys.stderr.write(f"{count:,} predicted\r")
        sys.stderr.flush()

"""The two frameworks behind one interface, and evaluation: the same code, from NumPy predictions, for both."""

import gc
import json
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from omegaconf import DictConfig, OmegaConf

from src.kit.config import UserError, find_component, load_config
from src.kit.inference import choose_views, fused_outputs
from src.kit.ranks import Place
from src.kit.run import Run, has_checkpoint, read_info, read_rows, write_json
from src.kit.storage import read_layers, write_csv, write_text
from src.kit.training.cards import chosen_threshold, write_card
from src.kit.training.checkpoints import find_checkpoint, restore_config
from src.kit.training.experiment import Experiment, build_named
from src.kit.training.splits import count_trained, list_ids
from src.kit.weights import load_metadata

# what the frameworks say about themselves, which no user can act on; here, since every rank imports this first
for message in (
    "No ccache found",
    ".*treespec.*LeafSpec.*",
    ".*always track global mean and variance.*",
    ".*CPUONLY mode.*",
):
    warnings.filterwarnings("ignore", message)
SHOWN = 24  # training images in the report


class Trainer(Protocol):
    """`src/trainers/<framework>.py`."""

    def fit(self, experiment: Experiment, run: Run, checkpoint: Path | None = None) -> None:
        """Train into the run folder, from a checkpoint folder if one is given."""
        ...


class Backend(Protocol):
    """`src/kit/<framework>`: what evaluation, reports and estimates need of a framework."""

    def load_network(self, experiment: Experiment, checkpoint: Path | None) -> Any:
        """The experiment's network with a checkpoint folder's weights, or as training starts it; to evaluate."""
        ...

    def weights_to_numpy(self, network: Any) -> dict[str, np.ndarray]:
        """Its parameters and statistics as float32, under PyTorch's names."""
        ...

    def predict(self, experiment: Experiment, network: Any, split: str) -> list[Any]:
        """What the task collects from the predictions for a split, in float32."""
        ...

    def predict_images(self, network: Any, images: Any) -> Any:
        """NumPy outputs for normalised images float32 (B, C, H, W)."""
        ...

    def join(self, cfg: DictConfig, place: Place) -> AbstractContextManager[Callable[[Any], list[Any]]]:
        """Connect the processes of a launcher: a context with a function that returns the objects of all ranks."""
        ...

    def list_layers(self, network: Any, shape: tuple[int, ...]) -> list[dict[str, Any]]:
        """One row for each leaf layer: name, type, output_shape and parameters, for an input of `shape`."""
        ...


def own_engine(cfg: DictConfig) -> str | None:
    """The module of `src/kit` that trains and runs a model without a framework: its file's constant `ENGINE`."""
    path = find_component("model", str(cfg.model.get("file") or cfg.model.name))
    found = re.search(r'^ENGINE = "(\w+)"', path.read_text("utf-8"), re.M) if path else None
    return found[1] if found else None


def load_trainer(cfg: DictConfig) -> Trainer:
    """Import `src/trainers/<framework>.py`, or what trains the model in its place; raises what `load_module` does."""
    with uncollected():
        backend: Any = load_backend(cfg)  # first: it knows how its framework is imported
        trainer: Trainer = backend if own_engine(cfg) else load_module(f"src.trainers.{cfg.framework}", cfg.framework)
        freeze_imports()
    return trainer


@contextmanager
def uncollected() -> Iterator[None]:
    """Import without garbage collection, which scans what a framework has made so far again and again."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


@cache
def freeze_imports() -> None:
    """Take what has been imported out of garbage collection: scanning a million objects takes milliseconds each time.

    Once, before a network is built: networks of earlier runs are garbage, which must be found.
    """
    gc.freeze()


def load_backend(cfg: DictConfig) -> Backend:
    """Import `src/kit/<framework>`, or what runs the model in its place; raises what `load_module` does."""
    backend: Backend = load_module(f"src.kit.{own_engine(cfg) or cfg.framework}", cfg.framework)
    return backend


def load_benchmark(framework: str) -> Any:
    """Import `src/kit/<framework>/benchmark.py`: a bare training step and what is measured of it."""
    return load_module(f"src.kit.{framework}.benchmark", framework)


def load_memory(framework: str) -> Any:
    """Import `src/kit/<framework>/memory_trace.py`: the allocations of two training steps."""
    return load_module(f"src.kit.{framework}.memory_trace", framework)


def load_module(name: str, framework: str) -> Any:
    """Import a framework's part of the project.

    Raises:
        UserError: this project was generated without the framework, or it is not installed.
    """
    if not find_spec(name):
        raise UserError(
            f"This project was generated without {framework}: add it with `copier update --data framework=both`."
        )
    try:
        with uncollected():
            return import_module(name)
    except ModuleNotFoundError as error:
        if str(error.name).startswith("src"):
            raise
        raise UserError(f"{error.name} is not installed: run `pip install -r requirements-cpu.txt`.") from error


def load_callbacks(cfg: DictConfig) -> Sequence[Any]:
    """Your own callbacks: `trainer.callbacks` is a list of names, or maps names to arguments of their `build`.

    Raises:
        UserError: there is no file `src/trainers/callbacks/<framework>/<name>.py`.
    """
    return list(build_named("callback", cfg.trainer.callbacks, cfg.framework).values())


def evaluate_run(
    experiment: Experiment, run: Path, splits: Sequence[str], which: str = "best", overrides: Sequence[str] = ()
) -> dict[str, dict[str, Any]]:
    """Write `evaluation-<split>.json` and pictures into a run folder, rewrite its report, and print the scores.

    Args:
        splits: of "val" and "test".
        which: "best", "last" or a checkpoint's name.
        overrides: keys that differ from the run's own, stored next to the scores.

    Returns:
        split -> the task's full evaluation.

    Raises:
        UserError: no such checkpoint, or data with other classes than it was trained on.
    """
    from src.kit.report import write_report

    checkpoint, how = find_evaluated(experiment, run, splits, which, overrides)
    backend = load_backend(experiment.cfg)
    network = backend.load_network(experiment, checkpoint)
    results, collected = {}, {}
    for name in splits:
        collected[name] = backend.predict(experiment, network, name)
        experiment.task.threshold = None if name == "val" else chosen_threshold(run, checkpoint)
        results[name] = {"split": name, **how, **experiment.evaluate(collected[name], name)}
        results[name] |= experiment.task.examine(experiment, name, partial(backend.predict_images, network))
        experiment.task.threshold = results[name].get("threshold")
        write_json(run / f"evaluation-{name}.json", results[name])
        write_samples(experiment, collected[name], name, run)
        print_scores(results[name])
    for name in splits:  # after the scores: nobody should wait for matplotlib
        experiment.task.draw_predictions(
            collected[name], experiment.evaluated(name), experiment.cfg, run / "pictures", name
        )
    if not any(word.startswith("data") for word in overrides):  # the pictures show the run's own data
        illustrate(experiment, run, backend, network)
    if which == "best" and not overrides:
        write_card(experiment, run, checkpoint)
    write_report(run)
    return results


def evaluate_views(
    experiment: Experiment, run: Path, split: str, which: str = "best", overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """Evaluate a split as `predict.py --tta` predicts, in several views of each image: `evaluation-<split>-tta.json`.

    The run's own scores, which other runs are compared with, its pictures and its card stay as they are.

    Returns:
        The task's full evaluation.

    Raises:
        UserError: as `evaluate_run`, and data that have one view only.
    """
    from src.kit.report import write_report

    card = experiment.card()
    views = choose_views(card)
    checkpoint, how = find_evaluated(experiment, run, [split], which, overrides)
    backend, task = load_backend(experiment.cfg), experiment.task
    collected: list[Any] = []
    compute = partial(backend.predict_images, backend.load_network(experiment, checkpoint))
    for images, *targets in experiment.build_loader(split):
        collected += task.collect(fused_outputs(card, views, compute, np.asarray(images, np.float32)), *targets)
    if split != "val":
        task.threshold = chosen_threshold(run, checkpoint, "val-tta") or chosen_threshold(run, checkpoint)
    how["views"] = ", ".join(map(str, views))
    result = {"split": split, **how, **experiment.evaluate(collected, split)}
    task.threshold = result.get("threshold")
    write_json(run / f"evaluation-{split}-tta.json", result)
    write_samples(experiment, collected, split, run, "-tta")
    print_scores(result)
    write_report(run)
    return result


def say_report(folder: Path) -> None:
    """Print where the report of a run, or of a cross-validation, is."""
    sys.stdout.write(f"report: {folder / 'report.html'}\n")


def find_evaluated(
    experiment: Experiment, run: Path, splits: Sequence[str], which: str, overrides: Sequence[str]
) -> tuple[Path, dict[str, str]]:
    """The checkpoint, and what an evaluation says of it; raises what `evaluate_run` does."""
    checkpoint = find_checkpoint(run, which)
    metadata = load_metadata(checkpoint / "model.safetensors")
    for name in splits:
        refuse_other_classes(metadata, experiment.task.classes(experiment.split(name)), experiment.cfg.data.name)
    return checkpoint, {"checkpoint": checkpoint.name, **({"overrides": " ".join(overrides)} if overrides else {})}


def write_samples(experiment: Experiment, collected: Sequence[Any], split: str, run: Path, kind: str = "") -> None:
    """Write predictions-<split><kind>.csv: the sample, its truth and what was predicted."""
    rows = experiment.task.sample_rows(collected, experiment.classes)
    ids = list_ids(experiment.evaluated(split), Path(experiment.cfg.data.get("root", "."))) or range(len(rows))
    named = [{"sample": sample, **row} for sample, row in zip(ids, rows, strict=False)]  # a limit may leave samples out
    write_csv(run / f"predictions-{split}{kind}.csv", named)


def refuse_other_classes(metadata: Mapping[str, str], classes: Sequence[str], data: str) -> None:
    """Refuse data with other classes than the network was trained on: the scores would mean nothing.

    Raises:
        UserError: names the first difference.
    """
    for number, (known, other) in enumerate(zip_longest(json.loads(metadata["classes"]), classes), 1):
        if known != other:
            raise UserError(
                f"Class {number} is {known!r} in the run and {other!r} in data={data}: evaluate it on data with the "
                "classes that it was trained on."
            )


def illustrate(experiment: Experiment, run: Path, backend: Backend, network: Any) -> None:
    """Draw a run's curves, sample images and network, which need no predictions."""
    from src.kit.report import count_parameters, draw_curves, draw_layers, draw_model_graph, model_table

    dataset = experiment.split("train")
    chosen = np.random.default_rng(experiment.cfg.seed).permutation(len(dataset))[:SHOWN]
    draw_curves(read_rows(run / "metrics.jsonl"), run / "pictures")
    draw_layers(read_layers(run), run / "pictures" / "layers.png")
    experiment.task.draw_samples(dataset, chosen, experiment.cfg, run / "pictures" / "training-images.png")
    height, width, channels = experiment.input_shape
    layers = backend.list_layers(network, (1, channels, height, width))
    write_text(run / "model.txt", model_table(layers))
    draw_model_graph(layers, run / "model_graph.png")
    write_json(run / "run.json", {**read_info(run), "parameters": count_parameters(layers)})


def load_experiment(run: Path, overrides: Sequence[str] = ()) -> Experiment:
    """The experiment of a run; tables are encoded as its training rows were."""
    restore_config(run)
    cfg = load_config(overrides, base=run / "config.yaml")
    if "preprocessing" in cfg.data and not cfg.data.preprocessing:
        weights = find_checkpoint(run, "best") / "model.safetensors"
        cfg = OmegaConf.merge(cfg, {"data": {"preprocessing": str(weights)}})
    return Experiment(cfg)


def evaluate_command(argv: Sequence[str], split: str) -> None:
    """`[RUN] [checkpoint=best] [--tta] [key=value ...]`: evaluate a run, by default the newest, on `split`."""
    words = [word for word in argv if "=" not in word and word != "--tta"]
    options = dict(word.split("=", 1) for word in argv if word.startswith("checkpoint="))
    if len(words) > 1 or any(word.startswith("-") for word in words):
        raise UserError(f"Cannot read {words[-1]!r}: write [RUN] [checkpoint=best] [--tta] [key=value ...].")
    run = Path(words[0]) if words else newest_run(Path("outputs"))
    overrides = [word for word in argv if "=" in word and not word.startswith("checkpoint=")]
    experiment = load_experiment(run, [*overrides, *score_all(run, overrides, split)])
    if seen := count_trained(experiment, run, split):
        sys.stderr.write(
            f"warning: {run} was trained on {seen:,} of these {split} samples: the data or keys changed.\n"
        )
    experiment.split(split)
    for note in experiment.notes:
        sys.stderr.write(f"{note}\n")
    which = options.get("checkpoint", "best")
    if "--tta" in argv:
        evaluate_views(experiment, run, split, which, overrides)
    else:
        evaluate_run(experiment, run, [split], which, overrides)
    say_report(run)


def score_all(run: Path, overrides: Sequence[str], split: str) -> list[str]:
    """`data.test_fraction=1.0` for samples from another place than the run's: none of them was trained on."""
    before, now = load_config([], base=run / "config.yaml").data, load_config(overrides, base=run / "config.yaml").data
    key = f"{split}_fraction"
    same = before.name == now.name and before.get("root") == now.get("root")
    given = any(word.startswith(f"data.{key}=") for word in overrides)
    return [] if same or given or key not in now else [f"data.{key}=1.0"]


def newest_run(outputs: Path) -> Path:
    """The run folder that was started last.

    Raises:
        UserError: there is none.
    """
    runs = [path.parent for path in outputs.glob("*/config.yaml") if has_checkpoint(path.parent)]
    if not runs:
        raise UserError(f"{outputs} holds no trained run: train first, with `python scripts/train.py`.")
    return max(runs, key=lambda run: (run / "config.yaml").stat().st_mtime)


def print_scores(result: dict[str, Any]) -> None:
    """Print the scores of an evaluation, one line each."""
    views = f", views: {result['views']}" if "views" in result else ""
    sys.stdout.write(f"{result['split']} split, {result['checkpoint']}, {result['samples']} samples{views}\n")
    width = max(20, *map(len, result))
    for name, value in result.items():
        if isinstance(value, float):
            sys.stdout.write(f"  {name:<{width}} {value:.4f}\n")
    for name, value in result.items():
        own = name.removeprefix("baseline_")
        if own != name and own in result and result[own] <= value:
            sys.stdout.write(f"  warning: {own} is no better than {value:.4f}, an answer that ignores the input.\n")
    for model, scores in result.get("beside", {}).items():
        listed = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
        sys.stdout.write(f"  {model}: {listed}\n")
    sys.stdout.flush()

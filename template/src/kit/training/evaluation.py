"""Evaluate a trained run: the same code, from NumPy predictions, for every framework."""

import json
import sys
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from src.kit.config import UserError, load_config
from src.kit.run import read_json, read_rows, write_json
from src.kit.training.backends import Backend, load_backend
from src.kit.training.checkpoints import find_checkpoint
from src.kit.training.experiment import Experiment
from src.kit.training.split_record import count_trained
from src.kit.weights import load_metadata

SHOWN = 24  # training images in the report


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

    checkpoint = find_checkpoint(run, which)
    metadata = load_metadata(checkpoint / "model.safetensors")
    how = {"checkpoint": checkpoint.name, **({"overrides": " ".join(overrides)} if overrides else {})}
    for name in splits:
        refuse_other_classes(metadata, experiment.task.classes(experiment.split(name)), experiment.cfg.data.name)
    backend = load_backend(experiment.cfg.framework)
    network = backend.load_network(experiment, checkpoint)
    results, collected = {}, {}
    for name in splits:
        collected[name] = backend.predict(experiment, network, name)
        results[name] = {"split": name, **how, **experiment.evaluate(collected[name])}
        write_json(run / f"evaluation-{name}.json", results[name])
        print_scores(results[name])
    for name in splits:  # after the scores: nobody should wait for matplotlib
        experiment.task.draw_predictions(
            collected[name], experiment.split(name), experiment.cfg, run / "pictures", name
        )
    illustrate(experiment, run, backend, network)
    write_report(run)
    sys.stdout.write(f"report: {run / 'report.html'}\n")
    return results


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
    from src.kit.report import count_parameters, draw_curves, draw_model_graph, model_table

    dataset = experiment.split("train")
    chosen = np.random.default_rng(experiment.cfg.seed).permutation(len(dataset))[:SHOWN]
    draw_curves(read_rows(run / "metrics.jsonl"), run / "pictures")
    experiment.task.draw_samples(dataset, chosen, experiment.cfg, run / "pictures" / "training-images.png")
    height, width, channels = experiment.input_shape
    layers = backend.list_layers(network, (1, channels, height, width))
    (run / "model.txt").write_text(model_table(layers), "utf-8")
    draw_model_graph(layers, run / "model_graph.png")
    write_json(run / "run.json", {**read_json(run / "run.json"), "parameters": count_parameters(layers)})


def load_experiment(run: Path, overrides: Sequence[str] = ()) -> Experiment:
    """The experiment of a run; tables are encoded as its training rows were."""
    cfg = load_config(overrides, base=run / "config.yaml")
    if "preprocessing" in cfg.data and not cfg.data.preprocessing:
        weights = find_checkpoint(run, "best") / "model.safetensors"
        cfg = OmegaConf.merge(cfg, {"data": {"preprocessing": str(weights)}})
    return Experiment(cfg)


def evaluate_command(argv: Sequence[str], split: str) -> None:
    """`[RUN] [checkpoint=best] [key=value ...]`: evaluate a run, by default the newest, on `split`."""
    words = [word for word in argv if "=" not in word]
    options = dict(word.split("=", 1) for word in argv if word.startswith("checkpoint="))
    if len(words) > 1 or any(word.startswith("-") for word in words):
        raise UserError(f"Cannot read {words[-1]!r}: write [RUN] [checkpoint=best] [key=value ...].")
    run = Path(words[0]) if words else newest_run(Path("outputs"))
    overrides = [word for word in argv if "=" in word and not word.startswith("checkpoint=")]
    experiment = load_experiment(run, overrides)
    if seen := count_trained(experiment, run, split):
        sys.stderr.write(
            f"warning: {run} was trained on {seen:,} of these {split} samples: the data or keys changed.\n"
        )
    evaluate_run(experiment, run, [split], options.get("checkpoint", "best"), overrides)


def newest_run(outputs: Path) -> Path:
    """The run folder that was started last.

    Raises:
        UserError: there is none.
    """
    runs = [path.parents[1] for path in outputs.glob("*/checkpoints/index.json")]
    if not runs:
        raise UserError(f"{outputs} holds no trained run: train first, with `python scripts/train.py`.")
    return max(runs, key=lambda run: (run / "config.yaml").stat().st_mtime)


def print_scores(result: dict[str, Any]) -> None:
    """Print the scores of an evaluation, one line each."""
    sys.stdout.write(f"{result['split']} split, {result['checkpoint']}, {result['samples']} samples\n")
    for name, value in result.items():
        if isinstance(value, float):
            sys.stdout.write(f"  {name:<20} {value:.4f}\n")
    sys.stdout.flush()

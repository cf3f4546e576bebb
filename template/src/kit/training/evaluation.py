"""Evaluate a trained run: the same code, from NumPy predictions, for every framework."""

import json
import sys
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from src.kit.catalog import build_dataset
from src.kit.config import UserError, load_config
from src.kit.report import write_report
from src.kit.run import write_json
from src.kit.training import backends as trainers
from src.kit.training import tasks
from src.kit.training.checkpoints import find
from src.kit.training.saved_splits import count_trained
from src.kit.weights import load_metadata

SHOWN = 24  # training images in the report


def evaluate(
    cfg: DictConfig, run: Path, splits: Sequence[str], which: str = "best", overrides: Sequence[str] = ()
) -> dict[str, dict[str, Any]]:
    """Write `evaluation-<split>.json` and pictures into a run folder, renew its report, and print the scores.

    Args:
        splits: of `val` and `test`.
        which: `best`, `last` or a checkpoint's name.
        overrides: what `cfg` has otherwise than the run, to be kept beside the scores.

    Returns:
        split -> the task's full evaluation.

    Raises:
        UserError: no such checkpoint, or data with other classes than it was trained on.
    """
    checkpoint = find(run, which)
    weights = checkpoint / "model.safetensors"
    metadata = load_metadata(weights)
    backend, task = trainers.load(cfg.framework), tasks.load(cfg.task)
    if "preprocessing" in cfg.data:  # other rows are encoded and scaled as those that were trained on
        cfg = OmegaConf.merge(cfg, {"data": {"preprocessing": str(weights)}})
    how = {"checkpoint": checkpoint.name, **({"overrides": " ".join(overrides)} if overrides else {})}
    results, drawings = {}, []
    for name in splits:
        dataset = build_dataset(cfg, name)
        refuse_other_classes(metadata, task.classes(dataset), cfg.data.name)
        kept = backend.predict(cfg, checkpoint, name)
        scores = task.evaluate(kept, task.classes(dataset))
        results[name] = {"split": name, **how, **scores}
        write_json(run / f"evaluation-{name}.json", results[name])
        print_scores(results[name])
        drawings.append((kept, dataset, cfg, run / "pictures", name))
    for drawing in drawings:  # after the scores: nobody should wait for matplotlib
        task.pictures(*drawing)
    illustrate(cfg, run)
    write_report(run)
    sys.stdout.write(f"report: {run / 'report.html'}\n")
    return results


def refuse_other_classes(metadata: Mapping[str, str], classes: Sequence[str], data: str) -> None:
    """The scores of classes that the network was not trained on would mean nothing.

    Raises:
        UserError: names the first difference.
    """
    for number, (known, found) in enumerate(zip_longest(json.loads(metadata["classes"]), classes), 1):
        if known != found:
            raise UserError(
                f"Class {number} is {known!r} in the run and {found!r} in data={data}: evaluate it on data with the "
                "classes that it was trained on."
            )


def illustrate(cfg: DictConfig, run: Path) -> None:
    """Write a run's curves, sample images and network, which need no predictions."""
    from src.kit.report import count_parameters, draw_curves, draw_model_graph, model_table
    from src.kit.run import read_json, read_rows

    dataset = build_dataset(cfg, "train")
    chosen = np.random.default_rng(cfg.seed).permutation(len(dataset))[:SHOWN]
    draw_curves(read_rows(run / "metrics.jsonl"), run / "pictures")
    tasks.load(cfg.task).draw_images(dataset, chosen, cfg, run / "pictures" / "training-images.png")
    layers = trainers.load(cfg.framework).layers(cfg, dataset)
    (run / "model.txt").write_text(model_table(layers), "utf-8")
    draw_model_graph(layers, run / "model_graph.png")
    write_json(run / "run.json", {**read_json(run / "run.json"), "parameters": count_parameters(layers)})


def main(argv: Sequence[str], split: str) -> None:
    """`[RUN] [checkpoint=best] [key=value ...]`: evaluate a run, by default the newest, on `split`."""
    words = [word for word in argv if "=" not in word]
    options = dict(word.split("=", 1) for word in argv if word.startswith("checkpoint="))
    if len(words) > 1 or any(word.startswith("-") for word in words):
        raise UserError(f"Cannot read {words[-1]!r}: write [RUN] [checkpoint=best] [key=value ...].")
    run = Path(words[0]) if words else newest(Path("outputs"))
    overrides = [word for word in argv if "=" in word and not word.startswith("checkpoint=")]
    cfg = load_config(overrides, base=run / "config.yaml")
    if seen := count_trained(cfg, run, split):
        sys.stderr.write(
            f"warning: {run} was trained on {seen:,} of these {split} samples: the data or keys changed.\n"
        )
    evaluate(cfg, run, [split], options.get("checkpoint", "best"), overrides)


def newest(outputs: Path) -> Path:
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

"""Measure loading speed: this project's loader, Pillow with the framework's DataLoader, and training on the data.

    python scripts/benchmark_data.py                                            # the digits, on any machine
    python scripts/benchmark_data.py data=cifar10 model=resnet18
    python scripts/benchmark_data.py data=image_folder data.root=photos --json
    python scripts/benchmark_data.py data=mnist --seconds 10 --rounds 7 --images 20000

Options: --seconds of each measurement (2), --rounds (3), --images to use at most (2000), --json.

The sides take turns, so that a busy machine slows all of them; ratios are medians of the rounds. The plain pipeline has
a worker process for each core, and no augmentation. "synthetic" trains on one batch that stays on the device: the
difference to "real" is the cost of the data.
"""

import argparse
import json
import sys
from collections import deque
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.kit.errors import UserError, run_main

TURNS = 4  # turns of training in the time of one loading measurement
ROWS = {
    "ours": "this project's loader",
    "cached": "the same, cached in memory",
    "plain": "Pillow + DataLoader",
    "synthetic": "training, synthetic data",
    "real": "training, this data",
}


def main(argv: list[str]) -> None:
    """Print the rates as a table or as one JSON object."""
    from src.kit.config import help_text, load_config

    if "--help" in argv or "-h" in argv:
        sys.stdout.write(f"{__doc__}\n{help_text()}")
        return
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=2000)
    options, overrides = parser.parse_known_args(argv)
    if options.seconds <= 0 or options.rounds < 1 or options.images < 1:
        raise UserError("--seconds must be above 0, --rounds and --images 1 or more.")
    cfg = load_config(overrides)
    result = benchmark(cfg, options.seconds, options.rounds, options.images)
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        print_tables(result)


def benchmark(cfg: Any, seconds: float, rounds: int, images: int) -> dict[str, Any]:
    """Measure `cfg.data` and `cfg.model` with up to `images` random training samples."""
    import numpy as np

    from src.kit.catalog import build_dataset
    from src.kit.loading import Split, largest_batch
    from src.kit.training import load_benchmark

    split = build_dataset(cfg, "train")
    if split.content != Split.content:
        raise UserError(f"data={cfg.data.name} holds {split.content}, and this measures {Split.content}.")
    split = split.take(np.random.default_rng(cfg.seed).permutation(len(split))[:images])
    backend = load_benchmark(cfg.framework)  # raises a sentence if a package is missing
    keys = {"framework": cfg.framework, "data": cfg.data.name, "model": cfg.model.name}
    shape = {"image_shape": list(split.images.shape), "batch_size": largest_batch(cfg), "images": len(split)}
    return {**keys, **shape, **measure_rates(cfg, split, backend, seconds, rounds)}


def measure_rates(cfg: Any, split: Any, backend: Any, seconds: float, rounds: int) -> dict[str, Any]:
    """Images a second of this project's batches, of Pillow and the framework's DataLoader, and of training.

    Args:
        backend: the module src/kit/<framework>/benchmark.py.
        seconds: of each measurement in each round.

    Returns:
        rates (images a second, medians of the rounds), ratios (medians of the rounds' ratios) and workers.
    """
    import numpy as np

    from src.kit.benchmarks import REPEATS, loading_rate, measure_in_turns, training_rate
    from src.kit.loading import choose_workers, keep_decoded
    from src.kit.training import load_task

    build_loader = load_task(cfg.task).build_loader
    workers = choose_workers(in_memory=False)
    in_memory = split.images.in_memory
    repeated = split if in_memory else split.take(np.tile(np.arange(len(split)), REPEATS))
    sources = {"ours": build_loader(cfg, repeated, "train"), "plain": backend.plain_loader(cfg, split, workers)}
    if not in_memory:
        sources["cached"] = build_loader(cfg, keep_decoded(split, "memory"), "train")
        deque(sources["cached"], maxlen=0)  # the epoch that decodes
    rates = measure_in_turns({name: partial(loading_rate, source, seconds) for name, source in sources.items()}, rounds)
    trainer = backend.Trainer(cfg, split)
    sides = {"synthetic": [trainer.synthetic()], "real": trainer.real()}
    turns = {name: partial(training_rate, trainer, source, seconds / TURNS) for name, source in sides.items()}
    rates |= measure_in_turns(turns, TURNS * rounds)
    pairs = {
        "ours / plain": ("ours", "plain"),
        "cached / plain": ("cached", "plain"),
        "real / synthetic": ("real", "synthetic"),
    }
    measured = {name: np.divide(rates[one], rates[other]) for name, (one, other) in pairs.items() if one in rates}
    ratios = {name: float(np.median(values)) for name, values in measured.items()}
    return {"rates": {name: median(values) for name, values in rates.items()}, "ratios": ratios, "workers": workers}


def print_tables(result: dict[str, Any]) -> None:
    """Print two tables: images a second, and the ratios."""
    from rich.console import Console
    from rich.table import Table

    height, width, _ = result["image_shape"]
    title = f"{result['data']} {width} x {height}, {result['model']}, {result['framework']}, {result['workers']} cores"
    rates, ratios = Table(title=title, min_width=len(title)), Table()
    for table, columns in ((rates, ("", "images/s", "ms/image")), (ratios, ("", "ratio"))):
        for number, column in enumerate(columns):
            table.add_column(column, justify="right" if number else "left")
    for name, text in ROWS.items():
        if name in result["rates"]:
            rate = result["rates"][name]
            rates.add_row(text, f"{rate:,.0f}", f"{1000 / rate:.3f}")
    for name, ratio in result["ratios"].items():
        ratios.add_row(name, f"{ratio:.2f}")
    Console().print(rates, ratios)


if __name__ == "__main__":
    run_main(main)

"""Measure the configured training: epoch time, images a second, GPU utilisation, memory, operations.

    python scripts/benchmark.py                                                 # the digits, on any machine
    python scripts/benchmark.py model=resnet18 data=cifar10
    python scripts/benchmark.py model=resnet50 data=imagenet trainer.precision=bf16-mixed --seconds 20 --rounds 5
    python scripts/benchmark.py --json

Options: --seconds of each measurement (2), --rounds (3), --json. What is measured is told on stderr; no further round
starts that would end after twice the time asked for, and 30 s.

Three sides take turns on one device: this project's trainer as train.py uses it, a hand-written loop on the same
data (forward pass, backward pass, optimizer), and that loop on one batch that stays on the device. All are timed from
an epoch's first step to its last; ratios are medians of the rounds. The first of several epochs, which decodes the
images, does not count; an epoch longer than --seconds is timed at its start only. MFU is the share of the device's peak
that the network's own operations reach. The figures and a picture are written to outputs/benchmarks/.
"""

import argparse
import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.kit.errors import UserError, run_main

KIT = Path(__file__).resolve().parents[1] / "src" / "kit" / "benchmarks"  # has a file for each other benchmark
ALONE = ["trainer.devices=1", "trainer.num_nodes=1", "trainer.strategy=auto", "trainer.early_stopping.patience=null"]
ROWS = {
    "samples_per_s": ("samples a second", "{:,.0f}"),
    "step_ms": ("ms a step", "{:,.2f}"),
    "epoch_s": ("s an epoch", "{:,.2f}"),
    "mfu": ("MFU", "{:.1%}"),
    "gpu_busy": ("GPU busy", "{:.0f} %"),
    "allocated_mib": ("GPU memory allocated, MiB", "{:,.0f}"),
    "reserved_mib": ("GPU memory reserved, MiB", "{:,.0f}"),
}


def main(argv: list[str]) -> None:
    """Print a table or a JSON object, and write figures and picture to a folder."""
    if argv and argv[0].isidentifier() and (KIT / f"{argv[0]}.py").is_file():
        import_module(f"src.kit.benchmarks.{argv[0]}").command(argv[1:])
        return
    from src.kit.config import help_text, load_config

    if "--help" in argv or "-h" in argv:
        sys.stdout.write(f"{__doc__}\n{help_text()}")
        return
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    options, overrides = parser.parse_known_args(argv)
    if options.seconds <= 0 or options.rounds < 1:
        raise UserError("--seconds must be above 0 and --rounds 1 or more.")
    cfg = load_config(overrides)
    result = benchmark(cfg, options.seconds, options.rounds)
    folder = write_results(cfg, result)
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        print_table(result)
        print(f"Written to {folder}")


def benchmark(cfg: Any, seconds: float, rounds: int) -> dict[str, Any]:
    """Measure `cfg` on one device, without its tracker; returns the figures and what they refer to."""
    from src.kit.benchmarks import measure_training
    from src.kit.hardware import detect
    from src.kit.loading import largest_batch
    from src.kit.memory import fit_memory
    from src.kit.run import describe_run
    from src.kit.training import load_benchmark

    if (accelerator := cfg.trainer.accelerator) not in ("auto", "cpu", "gpu"):
        raise UserError(
            f"The benchmark is for CPUs and NVIDIA GPUs, not for trainer.accelerator={accelerator}: use auto."
        )
    backend = load_benchmark(cfg.framework)  # raises a sentence if a package is missing
    cfg = fit_memory(cfg, detect())[0].copy()
    device = "gpu" if backend.gpu_name(cfg) or accelerator == "gpu" else "cpu"
    cfg.merge_with_dotlist([*ALONE, "tracker.name=none", f"trainer.accelerator={device}"])
    keys = {"model": cfg.model.name, "data": cfg.data.name, "precision": cfg.trainer.precision}
    measured = measure_training(cfg, backend, seconds, rounds, lambda text: print(text, file=sys.stderr, flush=True))
    return keys | {"batch_size": largest_batch(cfg)} | describe_run(cfg) | measured


def write_results(cfg: Any, result: dict[str, Any]) -> Path:
    """Write the configuration, benchmark.json and benchmark.png to a new folder, and return it."""
    from src.kit.benchmarks import draw_bars
    from src.kit.config import write_config
    from src.kit.run import new_folder, write_json

    folder = new_folder(Path(cfg.output_dir) / "benchmarks", cfg.name)
    write_config(cfg, folder / "config.yaml")
    write_json(folder / "benchmark.json", result)
    draw_bars(result, folder / "benchmark.png")
    return folder


def print_table(result: dict[str, Any]) -> None:
    """Print the table, with "-" for what was not measured, and what its figures refer to."""
    from rich.console import Console
    from rich.table import Table

    from src.kit.benchmarks import SIDES, title

    table = Table("", title=title(result))
    for name in SIDES.values():
        table.add_column(name, justify="right")
    for key, (text, form) in ROWS.items():
        values = [side[key] for side in result["sides"].values()]
        table.add_row(text, *("-" if value is None else form.format(value) for value in values))
    Console().print(table)
    print("Medians of each round's ratios: ", end="")
    print(", ".join(f"{name.replace('_', ' ')}: {ratio:.2f}" for name, ratio in result["ratios"].items()))
    operations = f"{result['step_flops'] / 1e9:,.3f} GFLOP" if result["step_flops"] else "unknown operations"
    print(f"A step: {operations}; peak: {result['peak_flops'] / 1e12:,.3f} TFLOP/s ({result['peak_of']}).")
    print(f"An epoch: {result['steps']} steps, and {result['validation_s']:.2f} s of validation.", end=" ")
    print(f"The process took {result['memory_mib']:,} MiB of RAM at most, while only this project had trained.")


if __name__ == "__main__":
    run_main(main)

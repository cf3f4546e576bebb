"""Compare estimates with the GPU memory that others measured for timm's networks, with whole families held out.

    python ../benchmarks/gpu_memory_timm.py ROWS.csv vgg11 seresnet50 ...    # in a project's folder; needs timm, no GPU

ROWS.csv has model, batch_size, measured_mib (seen from outside the process) and fake_tensor_mib (a naive count), from
itu-rad/GPUMemNet. Its optimizer, precision and GPU are not recorded: float32 and SGD without momentum are assumed here,
and one number is fitted, what every process takes on top: the median on half of the families, judged on the other
half, 20 times. A row is left out where the GPU of 40 GB was full: above 36,000 MiB, or not above the smaller batch's.
"""

import csv
import random
import re
import statistics
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path.cwd()))

import numpy as np
import timm
import torch

from src.kit.config import load_config
from src.kit.lightning.memory_trace import UnknownValues, record_steps
from src.kit.memory import MIB, DataShape, ScaledTrace, simulate_allocator
from src.kit.memory.estimate import CUBLAS, fill_handles

FULL_MIB = 36000
BATCHES = (8, 16)
KEYS = load_config([]).trainer
SPLITS = 20


def main(argv: list[str]) -> None:
    """Print the errors."""
    with Path(argv[0]).open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["model"] in argv[1:]]
    found: list[tuple[str, float, float, float]] = []  # family, estimated, measured, naive
    for name in argv[1:]:
        kept = usable([row for row in rows if row["model"] == name])
        if kept:
            scaled = trace(name)
            for row in kept:
                steps = fill_handles(scaled.at(int(row["batch_size"])), CUBLAS["before Hopper"])
                size = simulate_allocator(steps, "lightning").reserved / MIB
                measured, naive = float(row["measured_mib"]), float(row["fake_tensor_mib"])
                found.append((re.split(r"[^a-z]", name)[0], size, measured, naive))
                print(name, row["batch_size"], round(size), round(measured), flush=True)
    errors = held_out(found)
    report("estimate", errors)
    report("naive count", [(naive - measured) / measured for _, _, measured, naive in found])


def usable(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """The rows of one model up to the first batch that filled the GPU."""
    kept: list[dict[str, str]] = []
    for row in sorted(rows, key=lambda row: int(row["batch_size"])):
        size = float(row["measured_mib"])
        if size > FULL_MIB or (kept and size <= float(kept[-1]["measured_mib"])):
            break
        kept.append(row)
    return kept


def trace(name: str) -> ScaledTrace:
    """Two training steps of a network whose weights are never filled."""
    loss, traces = torch.nn.functional.cross_entropy, []
    with UnknownValues():
        for batch in BATCHES:
            network = timm.create_model(name).train()
            channels, side, _ = network.default_cfg["input_size"]
            shape, targets = DataShape(1000, channels, side, 1), [np.zeros(batch, np.int64)]
            traces.append(record_steps(network, loss, partial(build_optimizer, network), shape, targets, KEYS))
    return ScaledTrace(BATCHES, traces)


def build_optimizer(network: torch.nn.Module) -> torch.optim.Optimizer:
    """SGD without state."""
    return torch.optim.SGD(network.parameters(), 0.1, foreach=True)


def held_out(found: list[tuple[str, float, float, float]]) -> list[float]:
    """Relative errors on families that the offset was not taken from."""
    families = sorted({row[0] for row in found})
    errors = []
    for seed in range(SPLITS):
        test = set(random.Random(seed).sample(families, len(families) // 2))
        offset = statistics.median(measured - size for family, size, measured, _ in found if family not in test)
        errors += [(size + offset - measured) / measured for family, size, measured, _ in found if family in test]
    return errors


def report(name: str, errors: list[float]) -> None:
    """One line."""
    sizes = sorted(map(abs, errors))
    low = statistics.mean(error < 0 for error in errors)
    p95 = sizes[round(0.95 * (len(sizes) - 1))]
    print(f"{name}: median {statistics.median(sizes):.1%}, p95 {p95:.1%}, too low in {low:.0%} of {len(errors)}")


if __name__ == "__main__":
    main(sys.argv[1:])

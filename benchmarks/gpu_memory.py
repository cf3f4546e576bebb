"""Estimated beside measured GPU memory, for 120 trainings in both frameworks; one JSON line each.

    python ../benchmarks/gpu_memory.py                    # in a project's folder, with a GPU; goes on where it stopped
    python ../benchmarks/gpu_memory.py --dry-run          # the estimates of the same rows, on any machine
    python ../benchmarks/gpu_memory.py --summary          # errors of what was measured so far

Options: --out FILE (gpu_memory.jsonl), --framework lightning|paddle, --limit N rows.

Each row is measured in a process of its own, on noise, so that no data set is needed. No constant of the estimate comes
from these rows. Nothing was measured with it yet: no GPU could be had.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path.cwd()))

from src.memory.estimate import Estimator
from src.memory.shape import Shape
from src.utils.config import load_config

MODELS = ("small_cnn", "resnet18", "resnet50", "efficientnet_b0", "resnet18_attention")
BATCHES = (8, 32, 128)
PRECISIONS = ("32-true", "bf16-mixed")
OPTIMIZERS = ("adamw", "sgd")
FRAMEWORKS = ("lightning", "paddle")
SHAPE = Shape(classes=1000, channels=3, image_size=224, images=256)
KEYS = ("framework", "model", "precision", "optimizer", "batch")
MIB = 1 << 20


def main(argv: list[str]) -> None:
    """Measure, estimate or summarise; `--row` is the process of one row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu_memory.jsonl"))
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--summary", action="store_true")
    parser.add_argument("--framework", choices=FRAMEWORKS)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--row", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.row:
        print(json.dumps(measure(json.loads(options.row))))
        return
    if options.summary:
        print("\n".join(summary(read(options.out))))
        return
    rows = [row for row in all_rows() if options.framework in (None, row["framework"])][: options.limit]
    done = {key(row) for row in read(options.out)}
    for row in rows:
        if options.dry_run:
            print(json.dumps({**row, "estimate": estimate(row)}), flush=True)
        elif key(row) not in done:
            line = json.dumps({**row, **in_process(row)})
            print(line, flush=True)
            with options.out.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


def all_rows() -> list[dict[str, Any]]:
    """Every combination."""
    product = itertools.product(FRAMEWORKS, MODELS, PRECISIONS, OPTIMIZERS, BATCHES)
    return [dict(zip(KEYS, values, strict=True)) for values in product]


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    """What tells rows apart."""
    return tuple(row[name] for name in KEYS)


def read(path: Path) -> list[dict[str, Any]]:
    """The rows that are there; a line that was cut off is measured again."""
    rows = []
    for line in path.read_text("utf-8").splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def configure(row: dict[str, Any]) -> Any:
    """The row's configuration."""
    groups = [
        f"framework={row['framework']}",
        f"model={row['model']}",
        f"optimizer={row['optimizer']}",
        "data=imagenet",
    ]
    keys = [f"data.batch_size={row['batch']}", f"trainer.precision={row['precision']}", "data.cache=none"]
    return load_config([*groups, *keys, "deterministic=false"])


def estimate(row: dict[str, Any], capability: str | None = None) -> dict[str, Any]:
    """What is expected."""
    return Estimator(configure(row), SHAPE, capability).at(row["batch"]).to_dict()


def in_process(row: dict[str, Any]) -> dict[str, Any]:
    """Measure a row in a new process; what fails is a row too."""
    command = [sys.executable, __file__, "--row", json.dumps(row)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["?"])[-1][:300]}
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def measure(row: dict[str, Any]) -> dict[str, Any]:
    """Three steps on noise, and what the framework and the driver say they took."""
    import numpy as np
    from src.datasets.base import ArrayImages, Split
    from src.utils.registry import resolve

    cfg = configure(row)
    side = SHAPE.image_size
    images = ArrayImages(np.random.default_rng(0).integers(0, 255, (row["batch"], side, side, 3), np.uint8))
    classes = tuple(str(number) for number in range(SHAPE.classes))
    split = Split(images, np.arange(row["batch"], dtype=np.int64), classes)
    backend = resolve({name: f"src.trainers.{name}_benchmark" for name in FRAMEWORKS}, row["framework"], "framework")
    before = used_by_all()
    trainer = backend.Trainer(cfg, split)
    batch = trainer.synthetic()
    for _ in range(3):
        trainer.step(batch)
    trainer.wait()
    after = used_by_all()
    name, capability, allocated, reserved = FIGURES[row["framework"]]()
    found = {"allocated": allocated / MIB, "reserved": reserved / MIB, "process": after - before, "gpu": name}
    return {"measured": found, "estimate": estimate(row, capability)}


def used_by_all() -> float:
    """MiB of the GPU that are in use, by nvidia-smi: nothing else may run there."""
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0])


def torch_figures() -> tuple[str, str, int, int]:
    """GPU, compute capability, peaks of allocated and reserved bytes."""
    import torch

    capability = ".".join(map(str, torch.cuda.get_device_capability()))
    return torch.cuda.get_device_name(), capability, torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()


def paddle_figures() -> tuple[str, str, int, int]:
    """The same of Paddle."""
    import paddle

    cuda = paddle.device.cuda
    capability = ".".join(map(str, cuda.get_device_capability()))
    return cuda.get_device_name(), capability, cuda.max_memory_allocated(), cuda.max_memory_reserved()


FIGURES = {"lightning": torch_figures, "paddle": paddle_figures}


def summary(rows: list[dict[str, Any]]) -> list[str]:
    """A Markdown table: errors of allocated, reserved and process memory, and how often the estimate was too low."""
    lines = [
        "| framework | figure | rows | median error | p95 | too low | too low with margin |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for framework, figure in itertools.product(FRAMEWORKS, ("allocated", "reserved", "process")):
        chosen = [row for row in rows if row["framework"] == framework and "measured" in row]
        if not chosen:
            continue
        pairs = [
            (row["estimate"]["total" if figure == "process" else figure], row["measured"][figure]) for row in chosen
        ]
        errors = sorted(abs(guess - real) / real for guess, real in pairs)
        low = statistics.mean(guess < real for guess, real in pairs)
        needed = statistics.mean(row["estimate"]["needed"] < row["measured"]["process"] for row in chosen)
        p95 = errors[min(len(errors) - 1, round(0.95 * (len(errors) - 1)))]
        shares = " | ".join(f"{share:.1%}" for share in (statistics.median(errors), p95, low, needed))
        lines.append(f"| {framework} | {figure} | {len(chosen)} | {shares} |")
    return lines


if __name__ == "__main__":
    main(sys.argv[1:])

"""Compare estimated with measured GPU memory, for 176 trainings in both frameworks; one JSON line each.

    python ../benchmarks/gpu_memory.py                    # in a project's folder, with a GPU; resumes
    python ../benchmarks/gpu_memory.py --plan             # the rows, without measuring or estimating them
    python ../benchmarks/gpu_memory.py --dry-run          # the estimates of the same rows, on any machine
    python ../benchmarks/gpu_memory.py --summary          # errors of the rows measured so far

Options: --out FILE (gpu_memory.jsonl), --framework lightning|paddle, --limit N rows, --jobs N rows side by side (1).

Each row is measured in its own process on made-up batches, so no data set is needed. Side by side, a row has the
memory of its process only where the driver lists it by its number, which it does not in most containers. Models and
frameworks that the project lacks, or that are not installed, are skipped; the GPU builds of the two frameworks need an
environment each: run it in both, with the same FILE. Rows are shuffled, so that every model comes early. A row that
runs out of memory has an error.
The summary covers all rows, and the held-out families: no constant of the estimate may ever be fitted to those. Only
the CUDA context, the least margin and which convolutions take scratch have been fitted so far, to 22 rows of other
families on an H200.
"""

import argparse
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path.cwd()))

import numpy as np

from src.kit.config import find_component, load_config
from src.kit.memory import MIB, PREFETCHED, DataShape, Estimator, example_targets, find_data_shape
from src.kit.storage import read_rows
from src.kit.training import Experiment, load_benchmark

# model -> its family, its file below src/models, and its keys
MODELS = {
    "small_cnn": ("cnn", "small_cnn", ["data=imagenet"]),
    "resnet18": ("resnet", "resnet", ["data=imagenet"]),
    "resnet50": ("resnet", "resnet", ["data=imagenet"]),
    "efficientnet": ("efficientnet", "efficientnet", ["data=imagenet"]),
    "resnet18_attention": ("attention", "resnet_attention", ["data=imagenet"]),
    "yolov10n": ("yolov10", "yolov10", ["task=detection", "data=coco2017"]),
    "retinanet_resnet18": ("retinanet", "retinanet", ["task=detection", "data=coco2017", "loss=network"]),
    "deeplab_resnet18": ("deeplab", "deeplab", ["task=segmentation", "data=coco2017"]),
    "mask_rcnn_resnet18": ("mask_rcnn", "mask_rcnn", ["task=instance_segmentation", "data=coco2017"]),
}
HELD_OUT = ("efficientnet", "attention", "retinanet", "mask_rcnn")
BATCHES = {"data=imagenet": (8, 32, 128), "data=coco2017": (2, 8)}
PRECISIONS = ("32-true", "bf16-mixed")
OPTIMIZERS = ("adamw", "sgd")
FRAMEWORKS = ("lightning", "paddle")
PACKAGES = {"lightning": "torch", "paddle": "paddle"}
KEYS = ("framework", "model", "precision", "optimizer", "batch")


def main(argv: list[str]) -> None:
    """Measure, estimate or summarise; `--row` is the process of one row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu_memory.jsonl"))
    parser.add_argument("--plan", action="store_true")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--summary", action="store_true")
    parser.add_argument("--framework", choices=FRAMEWORKS)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--row", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.row:
        print(json.dumps(measure(json.loads(options.row), options.jobs == 1)))
        return
    if options.summary:
        print("\n".join(summary(read_rows(options.out, is_measured))))
        return
    rows = [row for row in all_rows() if options.framework in (None, row["framework"])][: options.limit]
    done = {row_key(row) for row in read_rows(options.out, is_measured)}
    if options.plan:
        print("\n".join(map(json.dumps, rows)))
        return
    rows = [row for row in rows if find_spec(PACKAGES[row["framework"]])]
    if options.dry_run:
        for row in rows:
            print(json.dumps({**row, "estimate": estimate(row)}), flush=True)
        return
    rows = [row for row in rows if row_key(row) not in done]
    with ThreadPoolExecutor(options.jobs) as pool, options.out.open("a", encoding="utf-8") as file:
        waiting = {pool.submit(in_process, row, options.jobs): row for row in rows}
        for future in as_completed(waiting):
            line = json.dumps({**waiting[future], **future.result()})
            print(line, flush=True)
            file.write(line + "\n")
            file.flush()


def all_rows() -> list[dict[str, Any]]:
    """Every combination that this project can train, in a fixed random order."""
    rows = []
    for framework, (model, (_, file, keys)) in itertools.product(FRAMEWORKS, MODELS.items()):
        if find_component("model", file, framework):
            batches = next(sizes for data, sizes in BATCHES.items() if data in keys)
            for values in itertools.product(PRECISIONS, OPTIMIZERS, batches):
                rows.append(dict(zip(KEYS, (framework, model, *values), strict=True)))
    random.Random(0).shuffle(rows)
    return rows


def row_key(row: dict[str, Any]) -> tuple[Any, ...]:
    """The values that identify a row."""
    return tuple(row[name] for name in KEYS)


def is_measured(row: Any) -> bool:
    """Whether a line of the file is whole."""
    return isinstance(row, dict)


def configure(row: dict[str, Any]) -> Any:
    """The row's configuration."""
    groups = [f"{name}={row[name]}" for name in ("framework", "model", "optimizer")]
    keys = [f"data.batch_size={row['batch']}", f"trainer.precision={row['precision']}", "data.cache=none"]
    return load_config([*MODELS[row["model"]][2], *groups, *keys, "deterministic=false"])


def estimate(row: dict[str, Any], capability: str | None = None) -> dict[str, Any]:
    """The estimate of a row."""
    return Estimator(configure(row), capability=capability).at(row["batch"]).to_dict()


def in_process(row: dict[str, Any], jobs: int) -> dict[str, Any]:
    """Measure a row in a new process; a failure becomes a row with an error."""
    command = [sys.executable, __file__, "--jobs", str(jobs), "--row", json.dumps(row)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["?"])[-1][:300]}
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def measure(row: dict[str, Any], alone: bool) -> dict[str, Any]:
    """Train three steps on made-up batches; returns what the framework and the driver report.

    `alone` says that what the GPU has in use before and after is this process's, where the driver does not list it.
    """
    cfg = configure(row)
    shape = find_data_shape(Experiment(cfg))
    backend = load_benchmark(row["framework"])
    before = used_by_all()
    trainer = backend.Trainer(cfg, stand_in(shape))
    # as many as the training holds on the GPU
    batches = [make_batch(cfg, shape, row["batch"]) for _ in range(1 + PREFETCHED[row["framework"]])]
    for step in range(3):
        trainer.step(batches[step % len(batches)])
    trainer.wait()
    process = used_by(os.getpid(), ask_driver("--query-compute-apps=pid,used_memory"))
    if process is None and alone:
        process = used_by_all() - before
    name, capability, allocated, reserved = FIGURES[row["framework"]]()
    found = {"allocated": allocated / MIB, "reserved": reserved / MIB, "gpu": name}
    found |= {} if process is None else {"process": process}
    return {"measured": found, "estimate": estimate(row, capability)}


def stand_in(shape: DataShape) -> Any:
    """A stand-in for the data set that a network is built for."""
    images = SimpleNamespace(shape=(shape.image_size, shape.image_size, shape.channels))
    classes = tuple(map(str, range(shape.classes)))
    counts = shape.class_counts
    of_scenes = {"channels": shape.channels, "has_class_maps": True, "pixel_classes": classes}
    return SimpleNamespace(classes=classes, class_counts=counts, images=images, **of_scenes)


def make_batch(cfg: Any, shape: DataShape, size: int) -> list[Any]:
    """Noise and the estimate's made-up targets, as the framework's tensors; Paddle's are on the GPU."""
    sides = (size, shape.channels, shape.image_size, shape.image_size)
    arrays = [np.random.default_rng(0).standard_normal(sides, np.float32), *example_targets(cfg.task, shape, size)]
    make = {"lightning": ("torch", "from_numpy"), "paddle": ("paddle", "to_tensor")}[cfg.framework]
    return [getattr(import_module(make[0]), make[1])(array) for array in arrays]


def ask_driver(query: str) -> str:
    """nvidia-smi's answer to a query, a line each."""
    command = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def used_by_all() -> float:
    """MiB of the GPU in use by all processes."""
    return float(ask_driver("--query-gpu=memory.used").splitlines()[0])


def used_by(pid: int, listing: str) -> float | None:
    """MiB of a process in nvidia-smi's list of lines "PID, MIB"; None where it is not listed, or without a number."""
    for line in listing.splitlines():
        number, _, used = line.partition(",")
        if number.strip() == str(pid) and used.strip().isdigit():
            return float(used)
    return None


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
        "| framework | families | figure | rows | median error | p95 | too low | too low with margin |",
        "|---|---|---|---:|---:|---:|---:|---:|",
    ]
    figures = ("allocated", "reserved", "process")
    for framework, families, figure in itertools.product(FRAMEWORKS, ("all", "held out"), figures):
        chosen = [row for row in rows if row["framework"] == framework and "measured" in row]
        if families == "held out":
            chosen = [row for row in chosen if MODELS[row["model"]][0] in HELD_OUT]
        if not chosen:
            continue
        known = [row for row in chosen if "process" in row["measured"]]
        pairs = [
            (row["estimate"]["total" if figure == "process" else figure], row["measured"][figure])
            for row in (known if figure == "process" else chosen)
        ]
        if not pairs:
            continue
        errors = sorted(abs(guess - real) / real for guess, real in pairs)
        low = statistics.mean(guess < real for guess, real in pairs)
        needed = [row["estimate"]["needed"] < row["measured"]["process"] for row in known]
        p95 = errors[min(len(errors) - 1, round(0.95 * (len(errors) - 1)))]
        shares = " | ".join(f"{share:.1%}" for share in (statistics.median(errors), p95, low))
        shares += f" | {statistics.mean(needed):.1%}" if needed else " | -"
        lines.append(f"| {framework} | {families} | {figure} | {len(pairs)} | {shares} |")
    return lines


if __name__ == "__main__":
    main(sys.argv[1:])

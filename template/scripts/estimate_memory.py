"""Estimate the GPU memory that a training takes, before it starts and without a GPU.

    python scripts/estimate_memory.py                                            # the defaults, on any machine
    python scripts/estimate_memory.py model=resnet18 data.batch_size=64 trainer.precision=bf16-mixed optimizer=adamw
    python scripts/estimate_memory.py model=resnet50 data=imagenet --json

Options: --json.

The data set is read only if its shape is not known. Parameters, gradients, optimizer state and activations are exact;
workspaces and fragmentation follow published rules, the CUDA context was measured with PyTorch. The last lines state
what was assumed.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.kit.errors import run_main

ROWS = {
    "parameters": "weights and buffers",
    "gradients": "of all parameters",
    "optimizer": "moments or velocities",
    "activations": "kept for the backward pass, and temporary",
    "workspace": "scratch of cuDNN and cuBLAS",
    "data": "batches, and images cached by data.cache",
    "fragmentation": "reserved by the allocator, unused by tensors",
    "context": "CUDA and the framework's kernels",
    "total": "as nvidia-smi shows it",
    "needed": "with a margin",
}


def main(argv: list[str]) -> None:
    """Print the estimate as tables or as one JSON object."""
    from src.kit.config import help_text, load_config

    if "--help" in argv or "-h" in argv:
        sys.stdout.write(f"{__doc__}\n{help_text()}")
        return
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--json", action="store_true")
    options, overrides = parser.parse_known_args(argv)
    result = estimate_training(load_config(overrides))
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        print_tables(result)


def estimate_training(cfg: Any) -> dict[str, Any]:
    """The estimate of one configuration, the largest batch for each GPU, and the smallest GPU that is enough."""
    from src.kit.hardware import detect
    from src.kit.loading import largest_batch
    from src.kit.memory import GPUS, Estimator, default_batch_size

    hardware = detect()
    batch = largest_batch(cfg) if cfg.data.batch_size != "auto" else default_batch_size(cfg, hardware)
    estimator = Estimator(cfg)
    estimate = estimator.at(batch)
    largest = {size: estimator.largest(memory) for size, memory in GPUS.items()}
    enough = next((size for size, memory in GPUS.items() if estimate.needed <= memory), None)
    keys = {
        "framework": cfg.framework,
        "model": cfg.model.name,
        "data": cfg.data.name,
        "precision": cfg.trainer.precision,
    }
    fits = {"largest_batch": largest, "smallest_gpu_gb": enough}
    notes = estimator.notes
    if not hardware.gpus and cfg.trainer.precision == "32-true":
        notes += ["Counted in 32 bits: what newer GPUs compute in, trainer.precision=bf16-mixed, takes less."]
    return {**keys, "mib": estimate.to_dict(), **fits, "notes": notes}


def print_tables(result: dict[str, Any]) -> None:
    """Print a table of memory, one of GPUs, the assumptions and a recommendation."""
    from rich.console import Console
    from rich.table import Table

    values = result["mib"]
    batch = values["batch_size"]
    memory = Table(title=f"{result['model']}, {result['data']}, batches of {batch}, {result['precision']}")
    memory.add_column("")
    memory.add_column("MiB", justify="right")
    memory.add_column("")
    for name, text in ROWS.items():
        if name == "total":
            memory.add_section()
        memory.add_row(name, f"{values[name]:,.1f}", text)
    gpus = Table(title="Largest batch that fits")
    for size in result["largest_batch"]:
        gpus.add_column(f"{size} GB", justify="right")
    gpus.add_row(*(str(count) for count in result["largest_batch"].values()))
    Console().print(memory, gpus)
    enough = result["smallest_gpu_gb"]
    advice = f"a GPU of {enough} GB or more" if enough else "smaller batches: no single GPU is large enough"
    print("\n".join([*result["notes"], f"Recommended: {advice}."]))


if __name__ == "__main__":
    run_main(main)

"""The steps of a pipeline check. Each one raises `UserError` for what is wrong, or says in a few words what it saw."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from src.kit.config import UserError

ROOT = Path(__file__).resolve().parents[3]


def environment(cfg: DictConfig) -> str:
    """Look at the machine and the packages, and import the framework."""
    from src.kit.hardware import Diagnosis, check_environment, detect, recommend
    from src.kit.training import backends as trainers

    hardware = detect()
    diagnosis = Diagnosis(hardware, recommend(hardware), check_environment(hardware, ROOT))
    faults = [f"{check.name}: {check.detail}" for check in diagnosis.checks if check.status == "fail"]
    if faults:
        raise UserError(f"{'; '.join(faults)}: see `python scripts/doctor.py`.")
    trainers.load(cfg.framework)
    warnings = [check.name for check in diagnosis.checks if check.status == "warn"]
    return cfg.framework + (f", warnings of scripts/doctor.py: {', '.join(warnings)}" if warnings else "")


def data(cfg: DictConfig) -> str:
    """Download what is missing, and load the three splits."""
    from src.kit.catalog import SPLITS, build_dataset, download_dataset

    download_dataset(cfg.data)
    loaded = {split: build_dataset(cfg, split) for split in SPLITS}
    counts = ", ".join(f"{len(part):,} {split}" for split, part in loaded.items())
    return f"{counts}, {len(loaded['train'].classes)} classes"


def loader(cfg: DictConfig) -> str:
    """Prepare an epoch's training batches, and check the first one."""
    from src.kit.catalog import build_dataset
    from src.kit.training import build_loader

    batches = build_loader(cfg, build_dataset(cfg, "train"), "train")
    started, images, shape = time.perf_counter(), 0, ()
    for inputs, *_ in batches:
        if not images:
            shape = inputs.shape
            if not np.isfinite(inputs).all() or inputs.std() == 0:
                raise UserError("The first batch holds values that are not finite, or one value only: see data.std.")
        images += len(inputs)
    return f"{len(batches)} batches of {shape}, {images / (time.perf_counter() - started):,.0f} images/s"


def training(cfg: DictConfig) -> str:
    """Train an epoch in a run folder of its own."""
    from src.kit.run import Run, read_rows
    from src.kit.training import backends as trainers

    with Run(cfg) as run:
        trainers.load(cfg.framework).fit(cfg, run)
    row = read_rows(run.path / "metrics.jsonl")[-1]
    return ", ".join(f"{name} {value:.3f}" for name, value in row.items() if "/" in name)


def evaluation(cfg: DictConfig) -> str:
    """Evaluate the checkpoint on the validation and test splits, with pictures and report."""
    from src.kit.training import evaluate, newest

    results = evaluate(cfg, newest(Path(cfg.output_dir)), ["val", "test"])
    score = next(name for name, value in results["test"].items() if isinstance(value, float))
    return ", ".join(f"{split} {score} {result[score]:.3f}" for split, result in results.items())


STEPS: dict[str, Callable[[DictConfig], str]] = {
    step.__name__: step for step in (environment, data, loader, training, evaluation)
}

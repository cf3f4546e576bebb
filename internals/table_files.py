"""A small table with all that a table can hold, and configurations for it."""

from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from src.kit.config.compose import load_config

ROWS = 200


def mixed_columns(rows: int = ROWS) -> dict[str, list[str]]:
    """Numbers and categories, each with missing values; `paid` depends on all but `noise`, a third is "yes"."""
    rng = np.random.default_rng(0)
    age, income, noise = rng.integers(18, 80, rows), rng.normal(50, 15, rows), rng.normal(size=rows)
    city = rng.choice(["Aachen", "Bern", "Como"], rows)
    score = (age - 49) / 18 + (income - 50) / 15 + 2.0 * (city == "Como") + 0.2 * rng.normal(size=rows)
    paid = np.where(score > np.quantile(score, 2 / 3), "yes", "no")
    columns = {
        "age": [str(value) for value in age],
        "income": [f"{value:.3f}" for value in income],
        "city": [str(value) for value in city],
        "noise": [f"{value:.4f}" for value in noise],
        "paid": [str(value) for value in paid],
    }
    for name in ("income", "city"):
        for row in rng.choice(rows, 12, replace=False):
            columns[name][row] = ""
    return columns


def write_csv(path: Path, columns: dict[str, list[str]], delimiter: str = ",") -> Path:
    """Write columns of texts."""
    lines = [delimiter.join(columns), *(delimiter.join(row) for row in zip(*columns.values(), strict=True))]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def table_config(path: Path, *overrides: str, target: str = "paid") -> DictConfig:
    """The configuration of a run on this file."""
    return load_config(
        ["task=tabular", "data=table_file", f"data.root={path}", f"data.target.column={target}", *overrides]
    )


def mixed_config(folder: Path, *overrides: str) -> DictConfig:
    """The configuration of a short run on the mixed table, which is written into the folder."""
    return table_config(write_csv(folder / "mixed.csv", mixed_columns()), "trainer.max_epochs=15", *overrides)

"""What `scripts/download.py --stage info` shows: the machine, its tier, and the data sets with their sizes."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from src.kit.catalog.selector import auto_select_dataset
from src.kit.catalog.spec import Spec, specs
from src.kit.config import load_config
from src.kit.hardware import detect, facts


def show_info(argv: Sequence[str]) -> None:
    """Print for the task of the configuration that `argv` sets; colours and frames only on a terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    hardware = detect()
    selection = auto_select_dataset(load_config(argv).task, hardware)
    console = Console()
    for name, value in facts(hardware):
        console.print(f"{name:<8}{value}", markup=False, highlight=False)
    console.print(f"{'Tier':<8}{selection.tier}, since {selection.reason}", markup=False, highlight=False)
    chosen = shlex.join([*selection.arguments, *argv])
    console.print(f"{'Chosen':<8}{chosen}\n", markup=False, highlight=False, soft_wrap=True)
    table = Table("data=", "tasks", "samples", "download", "there", box=SIMPLE_HEAD, pad_edge=False)
    for number in (2, 3):
        table.columns[number].justify = "right"
    for spec in specs().values():
        table.add_row(*row(spec))
    console.print(table)
    console.print(
        "Licences, homepages, sizes and debug twins: src/configs/data/dataset_spec.yaml",
        highlight=False,
        soft_wrap=True,
    )


def row(spec: Spec) -> tuple[str, ...]:
    """The cells of one data set."""
    samples = f"{sum(spec.splits.values()):,}" if spec.splits else "yours"
    return spec.name, "\n".join(spec.tasks), samples, size(spec.bytes), where(spec)


def where(spec: Spec) -> str:
    """Whether the data set is in the folder of its own configuration."""
    if spec.access == "bundled":
        return "yes"
    data: Any = load_config([f"data={spec.name}"]).data
    root = Path(data.root).expanduser()
    if root.exists() and spec.is_whole(root):
        return "yes"
    return "no (login)" if spec.access == "login" else "no"


def size(count: int) -> str:
    """11594722 -> "12 MB"."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.0f} MB" if count else ""

"""What `scripts/download.py --stage info` shows: the machine, its tier, and the data sets with their sizes."""

from pathlib import Path
from typing import Any

from src.datasets.spec import Spec, specs
from src.utils.config import load_config, option_names
from src.utils.dataset_selector import auto_select_dataset
from src.utils.hardware import detect
from src.utils.hardware.diagnosis import facts


def show_info(task: str) -> None:
    """Print for the task of the configuration; colours and frames only on a terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    hardware = detect()
    selection = auto_select_dataset(task, hardware)
    console = Console()
    for name, value in facts(hardware):
        console.print(f"{name:<8}{value}", markup=False, highlight=False)
    console.print(f"{'Tier':<8}{selection.tier}, since {selection.reason}", markup=False, highlight=False)
    chosen = " ".join(selection.arguments)
    console.print(f"{'Chosen':<8}{chosen}\n", markup=False, highlight=False, soft_wrap=True)
    table = Table("data=", "tasks", "images", "download", "there", "debug twin", box=SIMPLE_HEAD, pad_edge=False)
    for spec in specs().values():
        table.add_row(*row(spec))
    console.print(table)
    console.print("Licences, homepages and sizes: src/configs/data/dataset_spec.yaml", highlight=False)


def row(spec: Spec) -> tuple[str, ...]:
    """The cells of one data set."""
    images = f"{sum(spec.splits.values()):,}" if spec.splits else "yours"
    return spec.name, "\n".join(spec.tasks), images, size(spec.bytes), where(spec), spec.debug_twin or ""


def where(spec: Spec) -> str:
    """Whether the data set is in the folder of its own configuration."""
    if spec.access == "bundled":
        return "yes"
    if spec.name not in option_names("data"):
        return "no"
    data: Any = load_config([f"data={spec.name}"]).data
    root = Path(data.root).expanduser()
    there = root.is_dir() if spec.access == "own" else spec.is_whole(root)
    return "yes" if there else "no (login)" if spec.access == "login" else "no"


def size(count: int) -> str:
    """11594722 -> "12 MB"."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.0f} MB" if count else ""

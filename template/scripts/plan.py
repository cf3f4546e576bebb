"""Say how long a training will take on a cluster and what it will cost, from a run on one GPU.

    python scripts/plan.py outputs/RUN --nodes 4 --gpus 8 --gbit 25 --epochs 90 --price 12.5
    python scripts/plan.py outputs/RUN --nodes 8 --gpus 8 --interruptions 0.05 --interval 10 --price 4   # spot machines
    python scripts/plan.py --step-ms 180 --steps 5004 --parameters 25557032 --epochs 90 --nodes 4 --gpus 8

The step is measured: a run's metrics.jsonl has it, or scripts/benchmark.py prints it. The run should have two epochs or
more, since the first one reads the data. The bandwidth is what an all-reduce reaches, `busbw` of nccl-tests. Nothing of
an all-reduce is taken to be hidden behind the backward pass, unless --overlap says so: the result is the slow end. The
global batch grows with the processes; whether the network still learns as well is not computed.
"""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.kit.errors import UserError, run_main

MEASURED = ("step_ms", "steps", "parameters", "epochs")
LIMITS = {  # option: least and greatest value
    **{"nodes": (1, 100_000), "gpus": (1, 64), "epochs": (1, 10**9), "steps": (1, 10**12), "parameters": (1, 10**15)},
    **{"step_ms": (1e-6, 1e9), "gbit": (1e-6, 1e6), "local_gbit": (1e-6, 1e6), "latency_us": (0, 1e9)},
    **{"overlap": (0, 1), "price": (0, 1e9), "interruptions": (0, 1e3), "restart": (0, 1e6), "interval": (0, 1e9)},
}


def main(argv: list[str]) -> None:
    """Print a table and the formula, or a JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path, help="a run of one process")
    parser.add_argument("--nodes", type=int, default=1, help="machines (1)")
    parser.add_argument("--gpus", type=int, default=1, help="of each node (1)")
    parser.add_argument("--gbit", type=float, default=10, help="Gbit/s between nodes (10)")
    parser.add_argument("--local-gbit", type=float, default=100, help="Gbit/s between a node's GPUs (100)")
    parser.add_argument("--latency-us", type=float, default=20, help="microseconds that a message takes (20)")
    parser.add_argument("--overlap", type=float, default=0, help="share of the all-reduce that is hidden, 0 to 1 (0)")
    parser.add_argument("--price", type=float, default=0, help="of a node for an hour, in any currency")
    parser.add_argument("--interruptions", type=float, default=0, help="of a node in an hour: spot machines (0)")
    parser.add_argument("--restart", type=float, default=5, help="minutes until an interrupted run goes on (5)")
    parser.add_argument("--interval", type=float, default=0, help="minutes between checkpoints (an epoch)")
    parser.add_argument("--step-ms", type=float, help="of one process (the run's)")
    parser.add_argument("--steps", type=int, help="of one process in an epoch (the run's)")
    parser.add_argument("--parameters", type=int, help="that are trained (the run's)")
    parser.add_argument("--epochs", type=int, help="(the run's)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(argv)
    for name, (least, most) in LIMITS.items():
        value, option = getattr(options, name), f"--{name.replace('_', '-')}"
        if value is not None and not least <= value <= most:
            raise UserError(f"{option} must be a number from {least:g} to {most:g}, not {value:g}.")
    plan(options)


def plan(options: Any) -> None:
    """Compute and print."""
    from src.kit.cluster import Cluster, Work, as_rows, estimate, read_work, scale

    given = {name: getattr(options, name) for name in MEASURED if getattr(options, name) is not None}
    if not options.run and len(given) < len(MEASURED):
        raise UserError("Name a run, such as outputs/RUN, or give --step-ms, --steps, --parameters and --epochs.")
    if "step_ms" in given:
        given["step_s"] = given.pop("step_ms") / 1000
    work = Work(**({**vars(read_work(options.run)), **given} if options.run else given))
    cluster = Cluster(
        options.nodes, options.gpus, options.gbit, options.local_gbit, options.latency_us / 1e6, options.overlap,
        options.price, options.interruptions, 60 * options.restart, 60 * options.interval,
    )  # fmt: skip
    asked, rows = estimate(work, cluster), scale(work, cluster)
    if options.json:
        print(json.dumps({"work": vars(work), "asked": as_rows([asked])[0], "scale": as_rows(rows)}, indent=2))
    else:
        print_plan(work, cluster, asked, rows)


def print_plan(work: Any, cluster: Any, asked: Any, rows: list[Any]) -> None:
    """Print the table, what was assumed, the formula and the answer."""
    from rich.console import Console
    from rich.table import Table

    from src.kit.cluster import FORMULA

    table = Table("processes", "step, ms", "all-reduce, ms", "steps", "hours", "of ideal", "cost")
    for column in table.columns:
        column.justify = "right"
    for row in rows:
        figures = (f"{1000 * row.step_s:,.2f}", f"{1000 * row.allreduce_s:,.2f}", f"{row.steps:,}", short(row.hours))
        cells = (f"{row.ranks:,}", *figures, f"{row.efficiency:.0%}", short(row.cost) if cluster.price else "-")
        table.add_row(*cells, style="bold" if row.ranks == asked.ranks else None)
    Console().print(table)
    print(FORMULA)
    print(
        f"One process: {1000 * work.step_s:,.2f} ms a step, {work.steps:,} steps an epoch, "
        f"{work.parameters:,} parameters."
    )
    links = f"{cluster.gbit_s:g} Gbit/s between nodes, {cluster.local_gbit_s:g} within one"
    print(f"Assumed: {links}, {cluster.overlap:.0%} of the all-reduce hidden, a ring over all processes.")
    cost = f" and {short(asked.cost)}" if cluster.price else ""
    often = 1 / cluster.interruptions / cluster.nodes if cluster.interruptions else 0
    spot = f", with an interruption every {often:,.1f} hours" if often else ""
    epochs = f"{work.epochs} epoch{'s' * (work.epochs != 1)}"
    print(f"{cluster.nodes} x {cluster.gpus} GPUs: {short(asked.hours)} hours{cost} for {epochs}{spot}.")


def short(figure: float) -> str:
    """Hours or money: two decimals, or two digits of what would be 0.00."""
    return f"{figure:,.2f}" if figure >= 0.1 or not figure else f"{figure:.{1 - math.floor(math.log10(figure))}f}"


if __name__ == "__main__":
    run_main(main)

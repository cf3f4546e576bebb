"""How long a training takes on a cluster and what it costs, from one process's measured step.

Gradients are averaged by a ring all-reduce (Patarasuk and Yuan 2009, doi:10.1016/j.jpdc.2008.09.002): each of n ranks
sends 2 (n - 1) times a share of 1/n of the bytes. Interruptions come at random, as in Daly 2006
(doi:10.1016/j.future.2004.11.016).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from src.kit.config import UserError, refuse_url
from src.kit.run import read_info, read_rows

__all__ = ["FORMULA", "Cluster", "Estimate", "Work", "as_rows", "estimate", "read_work", "scale"]

FORMULA = """\
step       = measured step of one process + (1 - overlap) x all-reduce
all-reduce = 2 (n - 1) / n x 4 bytes x parameters / bandwidth + 2 (n - 1) x latency, for n processes
steps      = an epoch's steps of one process / n, rounded up: each process keeps its batch
time       = epochs x steps x step; with interruptions, M: mean time between two of any node,
             x M / interval x exp(restart / M) x (exp(interval / M) - 1)
cost       = time x nodes x price"""
GRADIENT_BYTES = 4  # float32, in mixed precision too


@dataclass(frozen=True)
class Work:
    """A training as one process does it."""

    step_s: float  # validation's share included, if measured by epochs
    steps: int  # an epoch
    parameters: int
    epochs: int


@dataclass(frozen=True)
class Cluster:
    """Where to train. A ring is as fast as its slowest link, the one between nodes if there are several."""

    nodes: int = 1
    gpus: int = 1  # of each node
    gbit_s: float = 10.0  # between nodes
    local_gbit_s: float = 100.0  # between the GPUs of a node
    latency_s: float = 20e-6  # of one message
    overlap: float = 0.0  # share of the all-reduce that is hidden behind the backward pass
    price: float = 0.0  # of a node for an hour
    interruptions: float = 0.0  # of a node in an hour
    restart_s: float = 300.0  # from an interruption until the run goes on
    interval_s: float = 0.0  # between checkpoints; 0: an epoch


@dataclass(frozen=True)
class Estimate:
    """What a training takes on a cluster."""

    ranks: int
    step_s: float
    allreduce_s: float
    steps: int  # an epoch
    hours: float  # math.inf: never
    cost: float
    efficiency: float  # work done a second, as a share of `ranks` times that of one process without interruptions


def read_work(run: Path) -> Work:
    """Measure a run that one process has trained: the median of its epochs, without the first, which reads the data.

    Raises:
        UserError: no such folder, it has no whole epoch, or several processes have trained it.
    """
    if not run.is_dir():
        refuse_url(run)
        raise UserError(f"{run} is not a folder: name that of a run, such as outputs/RUN.")
    info, rows = read_info(run), read_rows(run / "metrics.jsonl")
    timed = [row for row in rows if "epoch_s" in row and "step" in row]
    if not timed or "parameters" not in info:
        raise UserError(f"{run} has no finished epoch: train it for two, on one GPU, with scripts/train.py.")
    if info.get("processes", 1) != 1:
        raise UserError(
            f"{run} was trained by {info['processes']} processes, whose steps hold their communication: plan from a "
            "run of one process."
        )
    steps = [row["step"] - before for row, before in zip(timed, [0, *(row["step"] for row in timed)], strict=False)]
    seconds = [row["epoch_s"] / count for row, count in zip(timed, steps, strict=True) if count > 0]
    return Work(median(seconds[1:] or seconds), steps[-1], int(info["parameters"]), len(timed))


def allreduce_s(ranks: int, size: float, gbit_s: float, latency_s: float) -> float:
    """Seconds of a ring all-reduce of `size` bytes."""
    return 2 * (ranks - 1) * (size / ranks / (gbit_s * 1e9 / 8) + latency_s)


def interrupted(seconds: float, interval_s: float, restart_s: float, mean_s: float) -> float:
    """Expected duration of `seconds` of work if interruptions come after `mean_s` on average (Daly's equation 13).

    An interruption costs what was done since the last checkpoint and a restart, which can be interrupted too.
    """
    if math.isinf(mean_s) or seconds == 0:
        return seconds
    interval_s = min(interval_s, seconds)
    try:
        return mean_s * math.exp(restart_s / mean_s) * math.expm1(interval_s / mean_s) * seconds / interval_s
    except OverflowError:
        return math.inf


def estimate(work: Work, cluster: Cluster) -> Estimate:
    """Time and cost of `work` on `cluster`."""
    ranks = cluster.nodes * cluster.gpus
    gbit_s = cluster.gbit_s if cluster.nodes > 1 else cluster.local_gbit_s
    sent = allreduce_s(ranks, GRADIENT_BYTES * work.parameters, gbit_s, cluster.latency_s)
    step = work.step_s + (1 - cluster.overlap) * sent
    steps = math.ceil(work.steps / ranks)
    alone, epoch = work.epochs * work.steps * work.step_s, steps * step
    mean = 3600 / (cluster.interruptions * cluster.nodes) if cluster.interruptions else math.inf
    seconds = interrupted(work.epochs * epoch, cluster.interval_s or epoch, cluster.restart_s, mean)
    hours = seconds / 3600
    cost = hours * cluster.nodes * cluster.price if cluster.price else 0.0  # infinity times 0 is not a number
    return Estimate(ranks, step, sent, steps, hours, cost, alone / seconds / ranks)


def scale(work: Work, cluster: Cluster, most: int = 1024) -> list[Estimate]:
    """Estimates for 1, 2, 4 ... `most` processes on such nodes, and for the cluster itself, in order."""
    sizes = {2**power for power in range(most.bit_length())} | {cluster.nodes * cluster.gpus}
    fitting = [(max(1, size // cluster.gpus), min(size, cluster.gpus)) for size in sorted(sizes)]
    return [estimate(work, replace(cluster, nodes=nodes, gpus=gpus)) for nodes, gpus in dict.fromkeys(fitting)]


def as_rows(estimates: Iterable[Estimate]) -> list[dict[str, Any]]:
    """Estimates as JSON writes them, which knows no infinity."""
    return [{key: None if math.isinf(value) else value for key, value in vars(each).items()} for each in estimates]

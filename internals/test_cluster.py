"""What scripts/plan.py computes, against simulations. deploy/cluster/ is tested where it is rendered."""

import itertools
import json
import math
import subprocess
import sys

import numpy as np
import pytest

from paths import TEMPLATE
from src.kit.cluster import Cluster, Work, allreduce_s, as_rows, estimate, interrupted, read_work, scale
from src.kit.errors import UserError

RESNET50 = Work(step_s=0.18, steps=5004, parameters=25_557_032, epochs=90)


@pytest.mark.parametrize("ranks", [2**power for power in range(1, 11)])
def test_the_formula_is_what_a_ring_takes(ranks):
    """Shares of the gradients go round: first summed, then handed on, one message of each rank at a time."""
    gradients, bandwidth, latency = np.arange(ranks * ranks, dtype=np.float64).reshape(ranks, ranks), 1e9, 1e-5
    expected, seconds, rank = gradients.sum(axis=0), 0.0, np.arange(ranks)
    for step in range(2 * (ranks - 1)):
        share = (rank - step) % ranks if step < ranks - 1 else (rank + 1 - (step - ranks + 1)) % ranks
        sent, to = gradients[rank, share], (rank + 1) % ranks
        gradients[to, share] = gradients[to, share] + sent if step < ranks - 1 else sent
        seconds += 4 / bandwidth + latency  # all at once, a number of 4 bytes each
    assert (gradients == expected).all()
    assert allreduce_s(ranks, 4 * ranks, 8 * bandwidth / 1e9, latency) == pytest.approx(seconds)


@pytest.mark.parametrize(("interval", "restart", "mean"), [(600, 300, 3600), (3600, 60, 7200), (100, 0, 50)])
def test_interruptions_cost_what_they_do_in_a_simulation(interval, restart, mean):
    random, runs, work = np.random.default_rng(0), 300, 20
    total = 0.0
    for _ in range(runs):
        needed = [interval] * work
        while needed:
            time = random.exponential(mean)
            if time >= needed[-1]:
                total += needed.pop()
            else:  # what was done since the checkpoint is done again, after the restart
                total += time
                needed[-1] = interval + restart
    assert total / runs == pytest.approx(interrupted(interval * work, interval, restart, mean), rel=0.12)


def test_figures_that_can_be_worked_out_by_hand():
    one = estimate(RESNET50, Cluster(price=2.0))
    assert one.hours == pytest.approx(90 * 5004 * 0.18 / 3600) and one.cost == pytest.approx(2 * one.hours)
    assert (one.allreduce_s, one.efficiency) == (0, pytest.approx(1))
    two = estimate(RESNET50, Cluster(nodes=2, gbit_s=8, latency_s=0))
    assert two.allreduce_s == pytest.approx(4 * 25_557_032 / 1e9), "at 1 GB/s"
    assert two.step_s == pytest.approx(0.18 + two.allreduce_s) and two.steps == 2502
    hidden = estimate(RESNET50, Cluster(nodes=2, gbit_s=8, overlap=1))
    assert hidden.step_s == pytest.approx(0.18)
    assert interrupted(3600, 600, 300, math.inf) == 3600
    for price in (0.0, 2.0):
        endless = estimate(RESNET50, Cluster(nodes=1000, interruptions=1000, price=price))
        assert math.isinf(endless.hours), "never gets to a checkpoint"
        (row,) = as_rows([endless])
        assert row["hours"] is None and row["cost"] == (None if price else 0)
        json.dumps(row, allow_nan=False)


def test_the_table_goes_from_1_to_1024_processes():
    rows = scale(RESNET50, Cluster(nodes=3, gpus=8, gbit_s=25))
    assert [row.ranks for row in rows] == [1, 2, 4, 8, 16, 24, 32, 64, 128, 256, 512, 1024]
    assert all(first.step_s < second.step_s for first, second in itertools.pairwise(rows))
    assert [row.ranks for row in scale(RESNET50, Cluster(nodes=1, gpus=6), most=32)] == [1, 2, 4, 6, 12, 30]


def test_a_run_is_measured_without_its_first_epoch(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"parameters": 1000, "processes": 1}), "utf-8")
    rows = [{"epoch": 1, "step": 10, "epoch_s": 9.0}, {"epoch": 2, "step": 20, "epoch_s": 1.0}]
    rows += [{"epoch": 3, "step": 30, "epoch_s": 1.2}]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    assert read_work(tmp_path) == Work(pytest.approx(0.11), 10, 1000, 3)
    (tmp_path / "run.json").write_text(json.dumps({"parameters": 1000, "processes": 2}), "utf-8")
    with pytest.raises(UserError, match="a run of one process"):
        read_work(tmp_path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Name a run"),
        (["nowhere"], "nowhere is not a folder"),
        (["."], ". has no finished epoch"),
        (["--nodes", "0"], "--nodes must be a number from 1 to 100000, not 0."),
        (["--overlap", "1.5"], "--overlap must be a number from 0 to 1"),
        (["--price", "nan"], "--price must be a number"),
    ],
)
def test_a_mistake_is_one_sentence(words, said, tmp_path):
    command = [sys.executable, str(TEMPLATE / "scripts/plan.py"), *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert said in done.stderr and done.stderr.count("\n") == 1


def test_the_command_prints_table_formula_and_answer():
    words = ["--step-ms", "180", "--steps", "5004", "--parameters", "25557032", "--epochs", "90"]
    words += ["--nodes", "4", "--gpus", "8", "--price", "10"]
    command = [sys.executable, "scripts/plan.py", *words]
    shown, read = (
        subprocess.run([*command, *own], cwd=TEMPLATE, capture_output=True, text=True, check=True).stdout
        for own in ([], ["--json"])
    )
    asked = json.loads(read)["asked"]
    assert asked["ranks"] == 32 and asked["cost"] == pytest.approx(40 * asked["hours"])
    assert f"4 x 8 GPUs: {asked['hours']:.2f} hours and {asked['cost']:,.2f} for 90 epochs." in shown
    short = subprocess.run([*command, "--steps", "32", "--epochs", "1"], cwd=TEMPLATE, capture_output=True, text=True)
    assert "4 x 8 GPUs: 0.000094 hours and 0.0038 for 1 epoch." in short.stdout
    assert "1,024" in shown and "2 (n - 1) / n x 4 bytes x parameters / bandwidth" in shown

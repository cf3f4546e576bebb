"""What must hold of processes on two machines in every framework; test_launch_*.py run it in theirs.

The machines are two network namespaces of this one, joined by a pair of virtual cards. Each has its own /etc/hosts, in
which this machine's name has the namespace's address, as on a real node.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from paths import TEMPLATE
from several_processes import last_weights, read_record, record
from src.kit.config.compose import load_config
from src.kit.run import Run, read_json, read_rows
from src.kit.training import train_run
from tests.support import fit

KEYS = ["task=classification", "model=small_cnn", "data=digits", "optimizer=sgd", "tracker=none"]
KEYS += ["trainer.accelerator=cpu", "trainer.limit_train_batches=4", "trainer.max_epochs=3"]
ADDRESSES = ["10.213.0.1", "10.213.0.2"]  # of the machines
DRIVER = str(Path(__file__).with_name("several_processes.py"))
Launched = list[tuple[int, str]]  # exit code and output of the command on each machine


def ip(*arguments: str) -> int:
    """Run a command of iproute2 and return its exit code."""
    return subprocess.run(["ip", *arguments], capture_output=True, check=False).returncode


class LaunchTests:
    """Subclasses name the framework."""

    framework: str

    @pytest.fixture
    def machines(self) -> Iterator[list[str]]:
        """Two network namespaces."""
        names = [f"node{os.getpid()}{letter}" for letter in "ab"]
        cards = [f"v{os.getpid()}{letter}" for letter in "ab"]
        if not shutil.which("ip") or os.geteuid() != 0:
            pytest.skip("network namespaces need root and the command ip")
        folders = [Path("/etc/netns") / name for name in names]
        try:
            if any(ip("netns", "add", name) for name in names):
                pytest.skip("network namespaces cannot be made here")
            if ip(
                "link", "add", cards[0], "netns", names[0], "type", "veth", "peer", "name", cards[1], "netns", names[1]
            ):
                pytest.skip("virtual network cards cannot be made here")
            for name, card, folder, address in zip(names, cards, folders, ADDRESSES, strict=True):
                ip("-n", name, "addr", "add", f"{address}/24", "dev", card)
                ip("-n", name, "link", "set", "lo", "up")
                ip("-n", name, "link", "set", card, "up")
                folder.mkdir(parents=True)
                (folder / "hosts").write_text(f"127.0.0.1 localhost\n{address} {socket.gethostname()}\n", "utf-8")
            yield names
        finally:
            for name, folder in zip(names, folders, strict=True):
                ip("netns", "del", name)
                shutil.rmtree(folder, ignore_errors=True)

    def keys(self, folder: Path, name: str, *keys: str) -> list[str]:
        return [f"framework={self.framework}", f"output_dir={folder.as_posix()}", f"name={name}", *KEYS, *keys]

    def launch(self, machines: list[str], command: list[str], variables: Sequence[Mapping[str, str]] = ()) -> Launched:
        """Run Python with the same arguments, and the variables of each, on all machines at once."""
        common = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        started = [
            subprocess.Popen(
                ["ip", "netns", "exec", machine, sys.executable, *command],
                cwd=TEMPLATE,
                env=common | dict(own),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for machine, own in zip(machines, variables or ({}, {}), strict=True)
        ]
        try:
            outputs = [process.communicate(timeout=240)[0] for process in started]
        finally:
            for process in started:
                process.kill()
        return [(process.returncode, output) for process, output in zip(started, outputs, strict=True)]

    def driver(self, folder: Path, fault: str, name: str, save_every: int = 3) -> list[str]:
        """The arguments of each process: batches of 32, where one process alone takes 64."""
        (folder / "record").mkdir()
        saving = [f"trainer.checkpoint.every_n_steps={save_every}", "trainer.checkpoint.keep_last=2"]
        keys = self.keys(folder, name, "data.batch_size=32", *saving)
        return [DRIVER, str(folder / "record"), fault, "--", *keys]

    def check_equal_to_one_process(self, folder: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """`run` has the weights and the scores of one process that sees the same batches."""
        (alone := folder / "alone").mkdir()
        record(alone, replace=monkeypatch.setattr)
        whole = train_run(load_config(self.keys(folder, "alone", "data.batch_size=64")))
        first, second = (last_weights(each) for each in (whole, run))
        assert all(np.allclose(first[name], second[name], rtol=0, atol=1e-6) for name in first)
        rows = [read_rows(each / "metrics.jsonl") for each in (whole, run)]
        assert [row["epoch"] for row in rows[1]] == [1, 2, 3]
        for one, other in zip(*rows, strict=True):
            assert one["val/loss"] == pytest.approx(other["val/loss"], abs=1e-5)
        assert read_json(run / "run.json")["status"] == "finished"
        assert read_json(run / "run.json")["processes"] == 2
        first_epoch, (mine, other) = read_record(alone)[0][:4], read_record(folder / "record").values()
        for batch, *halves in zip(first_epoch, mine[:4], other[:4], strict=True):
            assert sorted(batch[1]) == sorted(halves[0][1] + halves[1][1])
        self.check_rest_in_one_process(run, alone)

    def check_rest_in_one_process(self, folder: Path, alone: Path) -> None:
        """One process with batches of 32 takes the samples that come after the two processes' first step of epoch 3."""
        cfg = load_config([], base=folder / "config.yaml")
        with Run(cfg, folder) as run:
            fit(cfg, run, folder / "checkpoints" / "epoch=002-step=000009")
        trained = [samples for size, samples in read_record(alone)[0] if size == 1259]
        assert [len(samples) for samples in trained[12:]] == [32, 32], "the last of 4 batches, as 64 samples were over"
        assert sorted(trained[12] + trained[13]) == sorted(trained[9])
        assert [row["step"] for row in run.rows] == [4, 8, 11]

    def seconds_since_fault(self, folder: Path) -> float:
        return time.time() - (folder / "record" / "happened").stat().st_mtime

    def test_two_unequal_processes_do_what_one_does_with_the_same_batches(self, tmp_path, monkeypatch):
        once = ["trainer.max_epochs=1", "trainer.limit_train_batches=1.0"]
        keys = self.keys(tmp_path, "own", *once, "data.batch_size=[40,24]")
        folders = [tmp_path / "alone", tmp_path / "divided"]
        for folder in folders:
            folder.mkdir()
        record(folders[0], replace=monkeypatch.setattr)
        one = train_run(load_config([*keys, "name=one"]))
        command = [sys.executable, DRIVER, str(folders[1]), "--", *keys, "trainer.devices=2"]
        done = subprocess.run(
            [*command, "name=two"], cwd=TEMPLATE, capture_output=True, text=True, check=False, timeout=180
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("epoch 1/1") == 1, "only rank 0 speaks"
        (two,) = tmp_path.glob("two-*")
        whole, divided = last_weights(one), last_weights(two)
        assert all(np.allclose(whole[name], divided[name], rtol=0, atol=1e-6) for name in whole)
        (alone,), (first, second) = (read_record(folder).values() for folder in folders)
        for (size, batch), (_, mine), (_, other) in zip(alone[:20], first[:20], second[:20], strict=True):
            assert size == 1259
            assert sorted(batch) == sorted(mine + other), "each sample goes to one process"
        assert [len(first[number][1]) for number in (0, 19)] == [40, 27], "the last 43 are divided alike"
        validated = [index for batches in (first, second) for _, batch in batches[20:] for index in batch]
        assert sorted(validated) == list(range(269))
        rows = [json.loads((run / "metrics.jsonl").read_text("utf-8")) for run in (one, two)]
        for name in ("val/loss", "val/accuracy"):
            assert rows[0][name] == pytest.approx(rows[1][name], abs=1e-5), name
        assert json.loads((two / "run.json").read_text("utf-8"))["status"] == "finished"

    def test_a_mistake_in_one_of_two_processes_is_one_sentence(self, tmp_path):
        (folder := tmp_path / "runs").mkdir()
        keys = self.keys(folder, "nan", "trainer.devices=2", "optimizer.lr=1e30", "data.batch_size=32")
        command = [sys.executable, "scripts/train.py", *keys]
        done = subprocess.run(command, cwd=TEMPLATE, capture_output=True, text=True, check=False, timeout=180)
        assert done.returncode == 2
        assert "The loss became" in done.stderr
        assert "Traceback" not in done.stderr
        assert not list(folder.iterdir())

"""Paddle on two machines, started by its own launcher and by SLURM's variables, and with divided optimizer state."""

import json
import os
import subprocess
import sys

import numpy as np

from launching import ADDRESSES, DRIVER, LaunchTests
from memory_traces import living
from paths import TEMPLATE
from several_processes import build_without_normalisation
from src.kit.config import load_config
from src.kit.memory import DataShape
from src.kit.paddle import memory_program, memory_trace
from src.kit.run import read_json, read_rows
from src.kit.training import find_checkpoint
from src.kit.weights import load_weights


class TestLaunchPaddle(LaunchTests):
    framework = "paddle"

    def test_two_unequal_processes_do_what_one_does_with_the_same_batches(self, tmp_path, monkeypatch):
        """And with divided state, killed and started again, bit for bit what they do without."""
        super().test_two_unequal_processes_do_what_one_does_with_the_same_batches(tmp_path, monkeypatch)
        (folder := tmp_path / "parts").mkdir()
        (two,) = tmp_path.glob("two-*")
        own = ["trainer.strategy=zero_1", "trainer.checkpoint.every_n_steps=5", "trainer.devices=2"]
        own += ["trainer.max_epochs=1", "trainer.limit_train_batches=1.0", "data.batch_size=[40,24]"]
        keys = self.keys(tmp_path, "parts", *own)
        assert self.drive(folder, "1:13:kill", "--", *keys).returncode != 0
        (run,) = tmp_path.glob("parts-*")
        assert find_checkpoint(run, "last").name == "epoch=000-step=000010"
        (run / "failure.txt").write_text("The sentence of a mistake that ended an earlier start.", "utf-8")
        mine, its = os.openpty()
        os.write(mine, b"p 'before step', self.loop.step_count + 1\nc\n")
        again = self.drive(folder, "--", "--resume", str(run), "--debugger", "12", stdin=its)
        os.close(mine)
        os.close(its)
        assert again.returncode == 0, again.stderr
        assert again.stdout.count("('before step', 12)") == 1, "rank 0 opens the debugger"
        for name in ("model", "training"):  # also the state is a whole one, from which any number of processes goes on
            files = [find_checkpoint(each, "last") / f"{name}.safetensors" for each in (two, run)]
            whole, divided = (load_weights(each)[0] for each in files)
            assert whole.keys() == divided.keys()
            assert all(np.array_equal(whole[key], divided[key]) for key in whole)
        self.check_estimate(folder, keys, monkeypatch)

    def test_the_score_of_a_checkpoint_is_its_own(self, tmp_path):
        """Each process has its own statistics of batch normalisation, and the checkpoint those of the first.

        The first also has a batch more to validate, for which the other sends its weights.
        """
        keys = ["trainer.devices=2", "trainer.max_epochs=1", "data.batch_size=2", "trainer.limit_train_batches=12"]
        keys += ["trainer.strategy=fsdp"]
        command = [sys.executable, "scripts/train.py", *self.keys(tmp_path, "own", *keys)]
        done = subprocess.run(command, cwd=TEMPLATE, capture_output=True, text=True, check=False, timeout=180)
        assert done.returncode == 0, done.stderr
        (run,) = tmp_path.glob("own-*")
        (row,) = read_rows(run / "metrics.jsonl")
        assert row["val/accuracy"] == read_json(run / "evaluation-val.json")["accuracy"]

    def drive(self, folder, *arguments, stdin=None):
        command = [sys.executable, DRIVER, str(folder), *arguments]
        return subprocess.run(
            command, cwd=TEMPLATE, stdin=stdin, capture_output=True, text=True, check=False, timeout=180
        )

    def check_estimate(self, folder, keys, monkeypatch):
        """The fuller process held what the estimate says, to the byte."""
        for module in (memory_program, memory_trace):
            monkeypatch.setattr(module, "build_model", build_without_normalisation)
        cfg, shape = load_config(keys), DataShape(10, 1, 8, 1000)
        (whole,) = memory_trace.trace_steps(cfg, shape, (2,))
        (part,) = memory_trace.divide_traces(cfg, shape, [whole], 2)
        held = [json.loads((folder / f"{rank}.held").read_text("utf-8"))["optimizer"] for rank in "01"]
        assert max(held) == living(part)["optimizer"]
        assert sum(held) == living(whole)["optimizer"]
        assert living(part) | {"optimizer": 0} == living(whole) | {"optimizer": 0}

    def test_a_mistake_ends_all_and_a_requeued_job_goes_on_and_equals_one_process(
        self,
        tmp_path,
        machines,
        monkeypatch,
    ):
        driver = [*self.driver(tmp_path, "1:13:mistake", "two"), "trainer.strategy=fsdp"]
        options = ["--nnodes=2", "--nproc_per_node=1", f"--master={ADDRESSES[0]}:29400"]
        launcher = ["-m", "paddle.distributed.launch", *options, f"--log_dir={tmp_path / 'log'}"]
        job = {"SLURM_JOB_ID": "77"}
        (code, first), (other_code, second) = self.launch(machines, [*launcher, *driver], [job, job])
        assert self.seconds_since_fault(tmp_path) < 30
        assert code, first
        assert other_code, second
        said = "ended the run: data.root holds a photo of a cat."
        assert said in first or said in second, first + second

        again = {**job, "SLURM_RESTART_COUNT": "1", "SLURM_STEP_ID": "0", "SLURM_STEP_NODELIST": ADDRESSES[0]}
        again |= {"SLURM_NTASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "1(x2)"}
        own = [{**again, "SLURM_PROCID": number, "SLURM_NODEID": number} for number in "01"]
        (code, first), (other_code, second) = self.launch(machines, driver, own)
        assert (code, other_code) == (0, 0), first + second
        (run,) = tmp_path.glob("two-*")
        self.check_equal_to_one_process(tmp_path, run, monkeypatch)

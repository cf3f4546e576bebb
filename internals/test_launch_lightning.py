"""Lightning on two machines, started by torchrun on each, and with weights divided between two processes."""

import json
import os
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard
from torch.testing._internal.distributed.fake_pg import FakeStore

from launching import ADDRESSES, DRIVER, LaunchTests
from memory_traces import living
from paths import TEMPLATE
from several_processes import build_without_normalisation, last_weights, record
from src.kit.config import load_config
from src.kit.lightning import memory_bound, memory_trace, sharding
from src.kit.memory import DataShape
from src.kit.run import read_rows
from src.kit.training import train_run
from src.kit.weights import load_weights


class TestLaunchLightning(LaunchTests):
    framework = "lightning"

    def test_torchrun_goes_on_after_a_process_was_killed_and_equals_one_process(
        self,
        tmp_path,
        machines,
        monkeypatch,
    ):
        options = ["--nnodes=2", "--nproc-per-node=1", "--max-restarts=1", "--rdzv-backend=c10d", "--rdzv-id=one"]
        torchrun = ["-m", "torch.distributed.run", *options, f"--rdzv-endpoint={ADDRESSES[0]}:29400"]
        command = [*torchrun, *self.driver(tmp_path, "1:13:kill", "two")]
        addresses = [{"PET_LOCAL_ADDR": address} for address in ADDRESSES]  # both machines have this one's name
        (code, first), (other_code, second) = self.launch(machines, command, addresses)
        assert (code, other_code) == (0, 0), first + second
        assert "died without a word" in first + second, "the process that was left says what happened"
        (run,) = tmp_path.glob("two-*")
        self.check_equal_to_one_process(tmp_path, run, monkeypatch)

    def test_a_sharded_run_goes_on_in_one_process_and_equals_one_process(self, tmp_path, monkeypatch):
        driver = self.driver(tmp_path, "1:13:mistake", "two", save_every=99)
        own = ["optimizer=adamw", "data.batch_size=[32,32]", "trainer.gradient_clip_val=0.5"]
        driver += [*own, "trainer.strategy=fsdp_offload"]
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        common = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        ranks = [
            subprocess.Popen(
                [sys.executable, *driver], cwd=TEMPLATE, env={**common, "RANK": rank}, stderr=subprocess.PIPE, text=True
            )
            for rank in "01"
        ]
        said = [rank.communicate(timeout=240)[1] for rank in ranks]
        assert [rank.returncode for rank in ranks] == [2, 2], said
        self.check_estimate(tmp_path, [*own, "trainer.strategy=fsdp"], monkeypatch)
        (run,) = tmp_path.glob("two-*")
        (saved,) = run.glob("checkpoints/epoch=*")
        state = load_weights(saved / "training.safetensors")[0]
        shapes = {name: array.shape for name, array in load_weights(saved / "model.safetensors")[0].items()}
        assert state.keys() >= {f"{name}/exp_avg_sq" for name in shapes}
        assert all(state[f"{name}/exp_avg"].shape == shape for name, shape in shapes.items())
        shutil.copytree(run, other := tmp_path / "undivided")
        again = [DRIVER, str(tmp_path / "record"), "--", "--resume", str(run)]
        done = subprocess.run([sys.executable, *again], cwd=TEMPLATE, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert [row["epoch"] for row in read_rows(run / "metrics.jsonl")] == [1, 2, 3]
        (alone := tmp_path / "alone").mkdir()
        record(alone, replace=monkeypatch.setattr)
        whole = train_run(load_config([*self.keys(tmp_path, "alone"), *own]))
        train_run(load_config(["trainer.strategy=auto"], base=other / "config.yaml"), other)
        for each in (run, other):
            first, second = last_weights(whole), last_weights(each)
            assert all(np.allclose(first[name], second[name], rtol=0, atol=1e-6) for name in first)

    @pytest.mark.parametrize("rows", [7, 2])
    def test_a_state_that_was_whole_is_divided(self, rows):
        """As a run's that goes on with `trainer.strategy=fsdp`; nothing is sent."""
        value = torch.arange(2.0 * rows).reshape(rows, 2)
        found = []
        for rank in range(3):
            torch.distributed.init_process_group("fake", store=FakeStore(), rank=rank, world_size=3)
            try:
                mesh = init_device_mesh("cpu", (3,))
                own = [*value.chunk(3), torch.zeros(0, 2)][rank]
                weight = DTensor.from_local(own, mesh, [Shard(0)], run_check=False, shape=value.shape, stride=(2, 1))
                found.append(sharding.part_of(value, weight).to_local())
                step = torch.tensor(5.0)
                assert sharding.part_of(step, weight) is step
            finally:
                torch.distributed.destroy_process_group()
        assert torch.equal(torch.cat(found), value)

    def test_a_process_with_fewer_batches_to_validate_sends_its_parts_until_all_have_done(self, tmp_path):
        """135 and 134 samples in batches of 67; blocks are gathered each time."""
        keys = ["model=resnet18", "trainer.devices=2", "trainer.max_epochs=1", "data.batch_size=67"]
        keys += ["trainer.strategy=fsdp", "trainer.limit_train_batches=1"]
        command = [sys.executable, "scripts/train.py", *self.keys(tmp_path, "own", *keys), "--debugger", "99"]
        mine, its = os.openpty()
        options = {"cwd": TEMPLATE, "stdin": its, "capture_output": True, "text": True}
        done = subprocess.run(command, check=False, timeout=180, **options)
        os.close(mine)
        os.close(its)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("--debugger 99: there was no such step") == 1, "rank 0 says it"

    def check_estimate(self, tmp_path, own, monkeypatch):
        """Each process held what the estimate says, to the byte."""

        for module in (memory_bound, memory_trace):
            monkeypatch.setattr(module, "build_model", build_without_normalisation)
        cfg, shape = load_config([*self.keys(tmp_path, "estimate"), *own]), DataShape(10, 1, 8, 1000)
        traces = memory_trace.trace_steps(cfg, shape, (2,))
        (trace,) = memory_trace.divide_traces(cfg, shape, traces, 2)
        held = [json.loads((tmp_path / "record" / f"{rank}.held").read_text("utf-8")) for rank in "01"]
        assert held == [living(trace)] * 2
        assert 1.9 < living(*traces)["parameters"] / held[0]["parameters"] <= 2
        cfg.trainer.strategy = "fsdp_offload"
        (trace,) = memory_trace.divide_traces(cfg, shape, traces, 2)
        assert not any(living(trace).values())
        assert trace.kinds[trace.events[0][0]] == "workspace"

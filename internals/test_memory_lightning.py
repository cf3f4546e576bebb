"""Estimates for PyTorch: exact against its own CPU allocator, and what is decided by them."""

import dataclasses
import gc
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

import memory_lightning
from memory_lightning import hardware, real_step
from memory_traces import live, living
from paths import TEMPLATE
from src.kit.config.compose import load_config
from src.kit.errors import UserError
from src.kit.lightning.memory_bound import iterate_tensors
from src.kit.lightning.memory_trace import UnknownValues, bound_bytes, padded_bytes, trace_steps
from src.kit.lightning.ranks import placement
from src.kit.memory.allocators import ScaledTrace, simulate_allocator
from src.kit.memory.estimate import GPUS, DataShape, Estimator, estimate, find_data_shape
from src.kit.memory.fit import FRAGMENTED, clearly_fits, fit_memory, fits_gpu
from src.kit.training import Experiment

SHAPE = DataShape(classes=10, channels=3, image_size=32, images=5000)
MODELS = ("small_cnn", "resnet18", "resnet18_attention", "efficientnet")
LARGE = ["model=resnet50", "data=imagenet", "data.batch_size=256"]


def test_devices_that_divide_the_weights_and_ram_that_holds_them() -> None:
    """test_launch_lightning.py compares the parts with two processes."""
    keys = ["model=small_cnn", "trainer.devices=[0,1,2,3]", "trainer.num_nodes=2"]
    whole, parts, rest = (
        Estimator(load_config([*keys, f"trainer.strategy={name}"]), SHAPE) for name in ("ddp", "fsdp", "fsdp_offload")
    )
    assert whole.at(2).parameters > parts.at(2).parameters > rest.at(2).parameters
    assert not whole.notes
    assert parts.notes == ["Weights, gradients and optimizer state are divided among 8 devices."]
    assert rest.notes == ["Weights, gradients and optimizer state are divided among 8 devices and kept in RAM."]
    refused = load_config([*keys, "trainer.strategy=zero_1"])
    for act in (lambda: Estimator(refused, SHAPE), lambda: placement(refused)):
        with pytest.raises(UserError, match=r"Lightning has no trainer\.strategy=zero_1: use fsdp"):
            act()


def test_two_processes_hold_what_the_estimate_says() -> None:
    """Gradients are views of the buckets in which they are sent, but for those of batches before a step's last one."""
    keys = ["model=small_cnn", "optimizer=adamw", "trainer.accelerator=cpu", "trainer.devices=2"]
    keys += ["trainer.accumulate_grad_batches=2"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    own = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, memory_lightning.__file__, *keys]
    options: dict[str, Any] = {"cwd": TEMPLATE, "stdout": subprocess.PIPE}
    ranks = [subprocess.Popen(command, env={**os.environ, **own, "RANK": rank}, **options) for rank in "01"]
    (trace,) = trace_steps(load_config(keys), SHAPE, (2,))
    series = live(trace)[0]
    for rank in ranks:
        held = json.loads(rank.communicate(timeout=120)[0])
        assert len(held) == 1 + 2 * 2 * 2
        assert all(min(abs(size - each) for each in series) < 1024 for size in held), "some hundred bytes are gloo's"
        assert held[-1] == pytest.approx(sum(living(trace).values()), abs=1024)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("batch", "keys"), [(2, ["optimizer=adamw"]), (7, ["optimizer=sgd"])])
def test_every_byte_that_is_kept(name: str, batch: int, keys: list[str]) -> None:
    cfg = load_config([f"model={name}", *keys])
    parameters, forward, step = real_step(cfg, SHAPE, batch)
    trace = trace_steps(cfg, SHAPE, (batch, 2 * batch))[0]
    series, kinds = live(trace)
    assert parameters == series[kinds.index("data") - 1]
    before = kinds.index("gradients")  # the backward pass has begun, with scratch and gradients of activations
    assert forward in series[:before]
    assert step in series[before:]


def test_no_memory_is_kept() -> None:
    cfg = load_config(["model=small_cnn", "model.width=13"])  # that no other test has traced
    before = len(UnknownValues.results)
    trace_steps(cfg, find_data_shape(Experiment(cfg)), (2,))
    assert len(UnknownValues.results) > before
    assert all(tensor.is_meta for tensor in iterate_tensors(UnknownValues.results.values()))


def test_half_precision_as_the_cpu_allocator_sees_it() -> None:
    cfg = load_config(["model=resnet18", "trainer.precision=bf16-mixed"])
    _, forward, _ = real_step(cfg, SHAPE, 4)
    series, kinds = live(trace_steps(cfg, SHAPE, (4, 8))[0])
    # the CPU's batch normalisation differs from CUDA's by some statistics
    nearest = min(series[: kinds.index("gradients")], key=lambda size: abs(size - forward))
    assert nearest == pytest.approx(forward, rel=1e-3)


def test_scratch_of_a_convolution_pads_few_channels_and_is_held_beside_what_is_returned() -> None:
    cfg = load_config(["model=small_cnn"])
    trace = trace_steps(cfg, SHAPE, (2,))[0]
    kinds = [trace.kinds[block] for block, size in trace.events if size > 0]
    assert kinds.count("workspace") == 2 * (1 + 3 + 2)  # forward only where 3 channels are padded; 3 and 2 gradients
    assert kinds.count("scratch") == 2 * 2
    first = kinds.index("workspace")
    sizes = [size for _, size in trace.events if size > 0]
    images, weights, outputs = 4 * 2 * 32 * 32, 4 * 12 * 5 * 5, 4 * 2 * 12 * 16 * 16
    assert sizes[first] == 4 * images + 4 * weights + outputs
    assert sizes[first - 1] == outputs
    assert padded_bytes(torch.empty(2, 3, 5, 5, dtype=torch.bfloat16)) == 2 * 2 * 8 * 25


def test_each_thread_takes_cublas_workspace_with_its_first_product() -> None:
    trace = trace_steps(load_config(["model=small_cnn"]), SHAPE, (2,))[0]
    kinds = [trace.kinds[block] for block, size in trace.events if size >= 0]
    first, second = (place for place, kind in enumerate(kinds) if kind == "handle")
    assert kinds.index("scratch") < first < second < kinds.index("gradients"), "after the convolutions; in both passes"
    on_ampere, on_hopper = (
        Estimator(load_config(["deterministic=false"]), SHAPE, each).at(2) for each in ("8.0", "9.0")
    )
    assert on_hopper.allocated - on_ampere.allocated == pytest.approx(2 * (32 - 8.125))


@pytest.mark.parametrize("name", ["small_cnn", "resnet18_attention"])
def test_the_line_through_two_batches_is_exact(name: str) -> None:
    cfg = load_config([f"model={name}", "trainer.precision=16-mixed"])
    line = ScaledTrace((4, 8), trace_steps(cfg, SHAPE, (4, 8))).at(48)
    direct = trace_steps(cfg, SHAPE, (48, 96))[0]
    assert simulate_allocator(line, "lightning") == simulate_allocator(direct, "lightning")


def test_the_table_adds_up_and_grows_with_the_batch() -> None:
    estimator = Estimator(load_config(["model=resnet18", "data=cifar10"]))
    small, large = estimator.at(32), estimator.at(256)
    parts = ("parameters", "gradients", "optimizer", "activations", "workspace", "data")
    assert sum(getattr(small, part) for part in parts) == pytest.approx(small.allocated)
    assert small.allocated + small.fragmentation + small.context == pytest.approx(small.total)
    assert large.activations > 4 * small.activations
    assert large.parameters == small.parameters == pytest.approx(42.7, abs=0.3)
    assert small.optimizer == pytest.approx(2 * small.parameters, rel=0.05)  # blocks are rounded
    for found in (small, large):  # the bound is above, without what is the same in both
        bound = bound_bytes(estimator.cfg, estimator.shape, found.batch_size) / 2**20
        assert 1 < bound / (found.allocated - found.workspace - found.data) < 10


@pytest.mark.parametrize("keys", [["optimizer=muon"], ["trainer.precision=bf16-mixed", "model=resnet18_attention"]])
def test_the_bound_is_above_the_estimate(keys: list[str]) -> None:
    estimator = Estimator(load_config(["model=small_cnn", "data=digits", *keys]))
    for batch in (2, 64):
        found = estimator.at(batch)
        bound = bound_bytes(estimator.cfg, estimator.shape, batch) / 2**20
        assert bound > found.allocated - found.workspace - found.data
        assert FRAGMENTED * (bound + found.workspace + found.data) > found.reserved


def test_the_same_training_is_traced_once_and_a_damaged_trace_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    traced: list[object] = []
    monkeypatch.setattr(
        "src.kit.lightning.memory_trace.trace_steps", lambda *args: traced.append(args) or trace_steps(*args)
    )

    def needed(*keys: str) -> float:
        return Estimator(load_config(["model=small_cnn", "data=digits", *keys])).at(4).needed

    first = needed()
    assert needed("seed=2", "data.batch_size=8", "tracker=none") == first
    assert len(traced) == 1
    file = next(tmp_path.rglob("*.npz"))
    whole = file.read_bytes()
    for damaged in (b"", whole[:-30], whole[:200] + bytes([whole[200] ^ 1]) + whole[201:]):
        file.write_bytes(damaged)
        assert needed() == first
        assert file.read_bytes() == whole
    assert len(traced) == 4
    assert needed("model.width=64", "trainer.precision=bf16-mixed") > first
    assert len(traced) == 5
    monkeypatch.setenv("XDG_CACHE_HOME", str(file))  # no folder
    assert needed() == first
    assert not [path for path in tmp_path.rglob("*") if path.suffix not in ("", ".npz")]


def test_what_clearly_fits_is_not_traced_and_bounded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    bounded: list[object] = []
    module = "src.kit.lightning.memory_trace"
    monkeypatch.setattr(f"{module}.trace_steps", lambda *_: pytest.fail("traced"))
    monkeypatch.setattr(f"{module}.bound_bytes", lambda *args: bounded.append(args) or bound_bytes(*args))
    for seed, batch in ((1, 32), (2, 32), (1, 64)):
        cfg = load_config(["model=resnet18", "data=cifar10", f"seed={seed}", f"data.batch_size={batch}"])
        assert fit_memory(cfg, hardware(GPUS[80])) == (cfg, "")
    assert [args[-1] for args in bounded] == [32, 64]
    detector = load_config(["task=detection", "data=coco2017", "data.batch_size=8"])
    assert not clearly_fits(detector, find_data_shape(Experiment(detector)), GPUS[80])
    assert [args[-1] for args in bounded] == [32, 64]
    assert len([*tmp_path.rglob("*.npz")]) == 2


@pytest.mark.parametrize(
    ("key", "smaller"),
    [("trainer.precision=bf16-mixed", True), ("optimizer=sgd", True), ("data.sizes=[256]", False)],
)
def test_what_a_key_does_to_the_total(key: str, smaller: bool) -> None:
    base = ["model=resnet18", "data=imagenet", "data.batch_size=16"]
    assert (estimate(load_config([*base, key])).total < estimate(load_config(base)).total) == smaller


def test_kept_images_count() -> None:
    base = ["model=small_cnn", "data=cifar10"]
    none, kept = (estimate(load_config([*base, f"data.cache={cache}"])).data for cache in ("none", "device"))
    assert kept - none == pytest.approx(50000 * 3 * 40 * 40 / 2**20)


def test_largest_batch_fits_and_a_larger_one_does_not() -> None:
    estimator = Estimator(load_config(LARGE))
    found = [estimator.largest(memory) for memory in GPUS.values()]
    assert found == sorted(found)
    assert found[0] > 0
    assert estimator.at(found[0]).needed <= GPUS[8] < estimator.at(round(1.1 * found[0]) + 1).needed


def test_refuse_says_what_to_change() -> None:
    with pytest.raises(UserError) as caught:
        fit_memory(load_config(LARGE), hardware(12282))
    message = str(caught.value)
    assert "data.batch_size=256" in message
    assert "12.0 GiB" in message
    assert "trainer.accumulate_grad_batches=" in message


def test_adapt_keeps_the_effective_batch() -> None:
    cfg, message = fit_memory(load_config([*LARGE, "trainer.on_oom=adapt"]), hardware(12282))
    assert cfg.data.batch_size * cfg.trainer.accumulate_grad_batches == 256
    assert cfg.data.batch_size < 256
    assert "training goes on with" in message
    assert estimate(cfg).needed <= 12282


@pytest.mark.parametrize("keys", [["trainer.on_oom=ignore"], ["trainer.accelerator=cpu"]])
def test_nothing_is_checked(keys: list[str]) -> None:
    cfg = load_config([*LARGE, *keys])
    assert fit_memory(cfg, hardware(1000)) == (cfg, "")


def test_no_batch_at_all_fits() -> None:
    with pytest.raises(UserError, match="too little"):
        fit_memory(load_config(LARGE), hardware(600))


def test_a_network_that_looks_at_its_pixels_is_trained_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    class Looking(torch.nn.Linear):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(images.flatten(1)) * (2.0 if images.sum().item() > 0 else 1.0)

    for module in ("memory_bound", "memory_trace"):
        monkeypatch.setattr(f"src.kit.lightning.{module}.build_model", lambda *_: Looking(64, 10))
    cfg = load_config([])
    kept, message = fit_memory(cfg, hardware(8000))
    assert kept == cfg
    assert "cannot be estimated" in message
    assert gc.isenabled(), "the training's memory is freed"


def test_auto_without_a_gpu() -> None:
    assert fit_memory(load_config(["data.batch_size=auto"]), hardware(0))[0].data.batch_size == 32


def limited(limit: int, tried: list[int]) -> Callable[[DictConfig], bool]:
    """Real training steps on the CPU, of which those fit that leave at most `limit` bytes after the forward pass."""

    def step(cfg: DictConfig) -> bool:
        tried.append(cfg.data.batch_size)
        return real_step(cfg, find_data_shape(Experiment(cfg)), cfg.data.batch_size)[1] <= limit

    return step


def test_auto_by_estimate_and_real_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg, tried = load_config(["data.batch_size=auto", "data.cache=none"]), []
    shape = dataclasses.replace(find_data_shape(Experiment(cfg)), images=900)
    monkeypatch.setattr("src.kit.memory.fit.find_data_shape", lambda _: shape)
    chosen, _ = fit_memory(cfg, hardware(4000), limited(3_000_000, tried))
    assert 1 <= len(tried) <= 3
    assert chosen.data.batch_size in tried
    assert real_step(chosen, find_data_shape(Experiment(cfg)), chosen.data.batch_size)[1] <= 3_000_000


def test_a_trial_in_a_process_of_its_own() -> None:
    cfg = load_config(["data.batch_size=8", "trainer.accelerator=cpu"])
    assert fits_gpu(cfg)
    cfg.model.width = -1
    with pytest.raises(UserError, match="failed"):
        fits_gpu(cfg)

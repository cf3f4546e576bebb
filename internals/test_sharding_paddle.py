"""Processes that divide optimizer state, gradients and weights in Paddle; test_launch_paddle.py runs whole trainings.

This file is also the program of the two processes that one of its tests starts.
"""

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest

from memory_paddle import used
from memory_traces import living
from paths import TEMPLATE
from src.kit.config import UserError, load_config
from src.kit.memory import DataShape, Estimator
from src.kit.paddle import (
    backward,
    build_optimizer,
    connect_ranks,
    memory_trace,
    refuse_unsupported,
    weights_from_numpy,
    weights_to_numpy,
)
from src.kit.paddle.sharding import (
    DividedWeights,
    divided_weights,
    fetch_weight,
    gathered_bytes,
    keeps,
    own_state,
    refuse_undivided,
    save_state,
    share_out,
)
from src.kit.paddle.trainer import save_divided
from src.kit.training import build_model
from src.kit.weights import load_weights, open_weights, save_weights

BASE = ["framework=paddle", "model=small_cnn", "trainer.accelerator=cpu"]
SHAPE = DataShape(10, 3, 32, 5000)
RECOMPUTED = [
    "optimizer=sgd",
    "optimizer.lr=0.01",
    "trainer.gradient_checkpointing=true",
    "trainer.gradient_clip_val=0.1",
]
CASES = {
    # its first steps have the size of the learning rate for whatever is not 0, and rounding decides what is 0
    "adamw": ["optimizer=adamw", "optimizer.lr=1e-5", "trainer.gradient_clip_val=0.1"],
    "muon": [
        "optimizer=muon",
        "optimizer.lr=0.001",
        "optimizer.adam_lr=1e-5",
        "trainer.gradient_clip_val=0.1",
        "trainer.gradient_clip_algorithm=value",
    ],
    "resnet18": [*RECOMPUTED, "model=resnet18"],
    "vit": [*RECOMPUTED, "model=vit", "model.patch=8", "data.image_size=32"],  # has weights outside its blocks
    "branches": ["optimizer=sgd", "optimizer.weight_decay=0", "trainer.gradient_clip_val=0.1"],
}


CHAIN = ("fsdp", "zero_2", "zero_1", "auto", "zero_2", "fsdp")  # each goes on from the one before


class Branches(paddle.nn.Layer):
    """A layer that is used twice, two that share a weight, a frozen one, and one that few samples need."""

    def __init__(self):
        super().__init__()
        self.rare, self.twice, self.first, self.second, self.frozen = (paddle.nn.Linear(32, 32) for _ in range(5))
        self.second.weight = self.first.weight
        self.frozen.weight.stop_gradient = True

    def forward(self, images):
        x = self.twice(self.twice(images.mean(axis=[1, 2])).tanh())
        x = self.frozen(self.second(self.first(x).tanh()))
        bright = (images[:, 0, :1, 0] > 0).astype("float32")
        return x + self.rare(x) * bright if float(bright.sum()) else x


def train(name, strategy, rank=0, ranks=1, steps=2, checkpoint=None):
    """Steps of two batches of four samples each, of which rank 0 of two has three; from and to a checkpoint, if any.

    Returns:
        The weights, and the bytes that this process holds, by kind.
    """
    cfg = load_config([*BASE, *CASES[name], f"trainer.strategy={strategy}"])
    images = np.random.default_rng(1).standard_normal((4, 3, 32, 32), np.float32)
    images[:, 0, 0, 0] = -1
    if name == "branches" and strategy != "fsdp":  # where all ranks need all layers' weights
        images[3, 0, 0, 0] = 1
    own = paddle.to_tensor(images[3 * rank : 3 + rank] if ranks > 1 else images)
    gc.collect()
    start = used()
    with paddle.utils.unique_name.guard():
        paddle.seed(0)
        network = Branches() if name == "branches" else build_model(cfg, 10, 3, 32)
        for layer in network.sublayers():
            layer.training = "Norm2D" not in type(layer).__name__
        optimizer = build_optimizer(cfg, network, rank, ranks)
        together = connect_ranks(network, optimizer, ranks)
        if checkpoint and checkpoint.exists():
            read_checkpoint(network, optimizer, checkpoint)
        for _ in range(steps):
            for scale in (0.2, 0.8):
                loss = together(own).square().mean() * scale * len(own) * ranks / 4
                backward(loss, optimizer)
            optimizer.step()
            optimizer.clear_grad()
    del loss
    layers = divided_weights(optimizer)
    if checkpoint:
        write_checkpoint(network, optimizer, checkpoint, {} if rank == 0 else None)
    tensors = network.state_dict()
    held = {
        "parameters": [each for each in tensors.values() if each._is_initialized()],
        "gradients": [each.grad for each in tensors.values() if each.grad is not None],
        "optimizer": [each for each in own_state(optimizer).values() if each.size > 1],
        "powers": [each for each in own_state(optimizer).values() if each.size == 1],
    }
    whole = {"all": used() - start}
    sizes = {kind: sum(each.size * each.element_size() for each in every) for kind, every in held.items()}
    arrays = {key: fetch_weight(layers, each) if layers else each.numpy() for key, each in tensors.items()}
    return arrays, sizes | whole | {"gathered": gathered_bytes(network)}


def read_checkpoint(network, optimizer, folder):
    """As `RunCallback.load_checkpoint` does."""
    weights_from_numpy(network, load_weights(folder / "model.safetensors")[0])
    with open_weights(folder / "training.safetensors") as file:
        own = {key: paddle.to_tensor(file.get_tensor(key)) for key in [*file.keys()] if keeps(optimizer, key)}
    optimizer.set_state_dict(own)


def write_checkpoint(network, optimizer, folder, metadata):
    """As `RunCallback.save` does; rank 0 has `metadata`."""
    folder.mkdir(exist_ok=True)
    path = folder / "model.safetensors"
    if layers := divided_weights(optimizer):
        save_divided(network, layers, path, metadata)
    elif metadata is not None:
        save_weights(path, weights_to_numpy(network), metadata)
    save_state(optimizer, folder / "training.safetensors", {}, metadata)
    paddle.distributed.barrier()


def compare(folder):
    """As one of two processes, train each case with each strategy, and alone; write what differs and what is held."""
    paddle.distributed.init_parallel_env()
    rank, most = paddle.distributed.get_rank(), 0
    gather = DividedWeights.gather

    def gather_and_count(layers, indices):
        nonlocal most
        gather(layers, indices)
        most = max(most, sum(layers.weights[index].size * 4 for index in layers.whole))

    DividedWeights.gather = gather_and_count
    rows = {}
    for name in CASES:
        for strategy in ("auto", "zero_1", "zero_2", "fsdp") if name == "adamw" else ("zero_2", "fsdp"):
            most = 0
            whole, _ = train(name, strategy)
            arrays, held = train(name, strategy, rank, 2)
            apart = max(float(np.abs(arrays[key] - whole[key]).max()) for key in whole)
            rows[f"{name} {strategy}"] = held | {"apart": apart, "most": most}
    whole, _ = train("adamw", "auto", steps=2 * len(CHAIN))
    for strategy in CHAIN:
        arrays, _ = train("adamw", strategy, rank, 2, checkpoint=Path(folder, "checkpoint"))
    rows["chain"] = max(float(np.abs(arrays[key] - whole[key]).max()) for key in whole)
    Path(folder, f"{rank}.json").write_text(json.dumps(rows), "utf-8")


def take_step(cfg, *rank):
    """A small network's first weights, its next, and the optimizer's state; the exchange of weights is left out."""
    with paddle.utils.unique_name.guard():
        paddle.seed(0)
        network = paddle.nn.Sequential(paddle.nn.Linear(6, 8), paddle.nn.Tanh(), paddle.nn.Linear(8, 3))
        optimizer, start = build_optimizer(cfg, network, *rank), weights_to_numpy(network)
        network(paddle.ones([4, 6])).square().sum().backward()
        type(optimizer).step(optimizer)
        return start, weights_to_numpy(network), {name: each.numpy() for name, each in own_state(optimizer).items()}


@pytest.mark.parametrize("clip", [[], ["trainer.gradient_clip_val=0.1"]], ids=["", "clipped"])
@pytest.mark.parametrize("name", ["adam", "adamw", "lion", "muon", "rmsprop", "sgd"])
def test_every_process_takes_the_whole_optimizers_step_for_its_weights(name, clip):
    cfg = load_config([*BASE, f"optimizer={name}", "trainer.strategy=zero_1", *clip])
    start, expected, states = take_step(cfg)
    found = []
    for rank in range(5):  # there are four weights
        _, weights, own = take_step(cfg, rank, 5)
        assert all(np.array_equal(array, states[key]) for key, array in own.items())
        changed = {key: array for key, array in weights.items() if not np.array_equal(array, start[key])}
        assert len(changed) == (rank < 4)
        assert all(np.array_equal(array, expected[key]) for key, array in changed.items())
        found += own
    assert sorted(found) == sorted(states)


def test_the_largest_go_to_those_that_have_least():
    assert share_out([1, 9, 4, 4, 2], 2) == [0, 0, 1, 1, 1]
    assert share_out([3], 4) == [0]
    assert share_out([], 2) == []


def test_the_estimate_knows_the_largest_part():
    cfg, shape = load_config([*BASE, "trainer.strategy=zero_1", "trainer.devices=2"]), DataShape(10, 3, 32, 5000)
    traces = memory_trace.trace_steps(cfg, shape, (1, 2))
    parts = memory_trace.divide_traces(cfg, shape, traces, 2)
    whole, part = (living(trace)["optimizer"] for trace in (traces[0], parts[0]))
    assert whole / 2 <= part < whole
    found = Estimator(cfg, shape)
    assert found.at(4).optimizer == pytest.approx(part / 2**20, rel=0.02), "blocks are multiples of 256 bytes"
    assert found.notes == ["The optimizer's state is divided among 2 devices."]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """What each of two processes wrote: case and strategy -> what differs and what is held."""
    folder = tmp_path_factory.mktemp("compared")
    command = [sys.executable, __file__, str(folder)]
    variables = {**os.environ, "PYTHONPATH": str(TEMPLATE), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=TEMPLATE, env=variables, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return [json.loads((folder / f"{rank}.json").read_text("utf-8")) for rank in "01"]


@pytest.mark.parametrize("strategy", ["zero_2", "fsdp"])
@pytest.mark.parametrize("name", CASES)
def test_two_processes_do_what_one_does(name, strategy, compared):
    """With unequal batches, accumulated; the weights that a layer needs are gone after it."""
    rows = [each[f"{name} {strategy}"] for each in compared]
    assert max(row["apart"] for row in rows) < 1e-6
    if strategy == "fsdp" and name != "branches":  # a layer used twice waits for both gradients
        assert 0 < max(row["most"] for row in rows) <= rows[0]["gathered"]


@pytest.mark.parametrize("strategy", ["auto", "zero_1"])
def test_data_parallel_holds_a_copy_of_the_gradients(strategy, compared):
    """As the estimate does, to the byte, and the learning rate."""
    cfg = load_config([*BASE, *CASES["adamw"], f"trainer.strategy={strategy}", "trainer.devices=2"])
    (trace,) = memory_trace.trace_steps(cfg, SHAPE, (2,))
    if strategy == "zero_1":
        (trace,) = memory_trace.divide_traces(cfg, SHAPE, [trace], 2)
    rows = [each[f"adamw {strategy}"] for each in compared]
    assert max(row["apart"] for row in rows) < 1e-6
    assert max(row["all"] - row["powers"] for row in rows) == sum(living(trace).values()) + 4


@pytest.mark.parametrize("strategy", ["zero_2", "fsdp"])
def test_a_process_holds_what_the_estimate_says(strategy, compared):
    """To the byte, the fuller one; what stays whole stays whole."""
    cfg = load_config([*BASE, *CASES["adamw"], f"trainer.strategy={strategy}"])
    (whole,) = memory_trace.trace_steps(cfg, SHAPE, (2,))
    (part,) = memory_trace.divide_traces(cfg, SHAPE, [whole], 2)
    rows = [each[f"adamw {strategy}"] for each in compared]
    fuller = max(rows, key=lambda row: row["optimizer"])
    assert living(part) == {kind: fuller[kind] for kind in living(part)}
    for kind in ("gradients", "optimizer"):
        assert sum(row[kind] for row in rows) == living(whole)[kind]
    assert (fuller["parameters"] < living(whole)["parameters"]) == (strategy == "fsdp")


def test_a_checkpoint_serves_every_strategy(compared):
    assert max(each["chain"] for each in compared) < 1e-6


def test_what_paddle_cannot_divide_is_refused():
    with pytest.raises(UserError, match=r"Paddle has no trainer\.strategy=fsdp_offload: use fsdp"):
        refuse_unsupported(load_config([*BASE, "trainer.strategy=deepspeed_stage_3_offload"]))
    with pytest.raises(UserError, match=r"trainer\.strategy=fsdp has no trainer\.ema"):
        refuse_unsupported(load_config([*BASE, "trainer.strategy=fsdp", "trainer.ema=0.9"]))
    with pytest.raises(UserError, match=r"trainer\.strategy=zero_2 has no trainer\.precision=16-mixed: use bf16"):
        refuse_undivided(load_config([*BASE, "trainer.strategy=zero_2", "trainer.precision=16-mixed"]))


if __name__ == "__main__":
    paddle.distributed.spawn(compare, (sys.argv[1],), nprocs=2, backend="gloo")

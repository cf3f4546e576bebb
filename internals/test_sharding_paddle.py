"""Processes that divide the optimizer's state in Paddle; test_launch_paddle.py runs two."""

import numpy as np
import paddle
import pytest

from memory_traces import living
from src.kit.config import UserError, load_config
from src.kit.memory import DataShape, Estimator
from src.kit.paddle import build_optimizer, memory_trace, refuse_unsupported, weights_to_numpy
from src.kit.paddle.sharding import own_state, share_out

BASE = ["framework=paddle", "model=small_cnn", "trainer.accelerator=cpu"]


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


def test_what_paddle_cannot_divide_is_refused():
    with pytest.raises(UserError, match=r"Paddle has no trainer\.strategy=fsdp: use zero_1"):
        refuse_unsupported(load_config([*BASE, "trainer.strategy=deepspeed_stage_2"]))

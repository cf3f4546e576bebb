"""Estimates for Paddle, against its own CPU allocator's statistics."""

import gc
import traceback

import paddle
import pytest

from memory_paddle import real_step
from memory_traces import live
from src.kit.config.compose import load_config
from src.kit.memory.allocators import ScaledTrace, simulate_allocator
from src.kit.memory.estimate import DataShape, Estimator, estimate
from src.kit.paddle.memory_trace import count_optimizer_states, trace_steps

SHAPE = DataShape(classes=10, channels=3, image_size=32, images=5000)
MODELS = ("small_cnn", "resnet18", "resnet18_attention", "efficientnet")


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("batch", [2, 7])
def test_what_is_kept(name: str, batch: int) -> None:
    cfg = load_config(["framework=paddle", f"model={name}", "trainer.accelerator=cpu"])
    series, kinds = live(trace_steps(cfg, SHAPE, (batch, 2 * batch))[0])
    parameters, forward, backward = real_step(cfg, SHAPE, batch)
    assert parameters == series[kinds.index("data") - 1]
    before = series[: kinds.index("gradients")]
    assert min(before, key=lambda size: abs(size - forward)) == pytest.approx(forward, rel=1e-3)
    assert min(series, key=lambda size: abs(size - backward)) == pytest.approx(backward, abs=64)


def test_the_line_through_two_batches_is_exact() -> None:
    cfg = load_config(["framework=paddle", "model=resnet18_attention", "trainer.precision=bf16-mixed"])
    line = ScaledTrace((4, 8), trace_steps(cfg, SHAPE, (4, 8))).at(48)
    assert simulate_allocator(line, "paddle") == simulate_allocator(trace_steps(cfg, SHAPE, (48, 96))[0], "paddle")


def test_half_precision_and_the_other_optimizer_take_less() -> None:
    base = ["framework=paddle", "model=resnet18", "data=imagenet", "data.batch_size=32"]
    keys = ([], ["trainer.precision=16-mixed"], ["optimizer=sgd"])
    full, half, sgd = (estimate(load_config([*base, *key])) for key in keys)
    assert 0.5 * full.activations < half.activations < 0.75 * full.activations
    assert sgd.optimizer == pytest.approx(full.optimizer / 2, rel=0.01)


def test_the_table_adds_up() -> None:
    found = Estimator(load_config(["framework=paddle", "model=resnet18", "data=cifar10"])).at(32)
    parts = ("parameters", "gradients", "optimizer", "activations", "workspace", "data")
    assert sum(getattr(found, part) for part in parts) == pytest.approx(found.allocated)
    assert found.fragmentation >= 0


def stacks() -> dict[int, int]:
    """Every Python stack that is kept somewhere, and its length."""
    return {id(each): len(each) for each in gc.get_objects() if type(each) is traceback.StackSummary}


def test_the_network_still_trains_afterwards_and_little_is_kept() -> None:
    cfg = load_config(["framework=paddle", "model=small_cnn"])
    before = stacks()
    trace_steps(cfg, SHAPE, (2, 4))
    kept = [length for key, length in stacks().items() if key not in before]
    assert kept and max(kept) == 1, "Paddle keeps the Python stack of each operation for ever"
    assert paddle.in_dynamic_mode()
    assert float(paddle.ones([2]).sum()) == 2.0


@pytest.mark.parametrize(("name", "states"), [("adamw", 2), ("sgd", 1)])
def test_an_optimizers_state_is_counted(name: str, states: int) -> None:
    assert count_optimizer_states(load_config(["framework=paddle", f"optimizer={name}"])) == states

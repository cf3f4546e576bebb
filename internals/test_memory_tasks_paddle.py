"""Estimates of detectors, segmentation and tables for Paddle, against its own CPU allocator's statistics."""

from collections.abc import Callable

import paddle
import pytest

from memory_paddle import real_step
from memory_traces import live
from src.kit.config.compose import load_config
from src.kit.errors import UserError
from src.kit.hardware.hardware import Gpu, Hardware
from src.kit.memory.allocators import MIB
from src.kit.memory.estimate import Estimator, estimate, find_data_shape
from src.kit.memory.fit import fit_memory
from src.kit.paddle.memory_trace import trace_steps
from src.kit.training import Experiment

TASKS = {
    "yolov10n": ["task=detection"],
    "yolov10s": ["task=detection", "model=yolov10s"],
    "retinanet": ["task=detection", "model=retinanet_resnet18", "loss=network"],
    "deeplab": ["task=segmentation", "model=deeplab_resnet18"],
    "mask_rcnn": ["task=instance_segmentation"],
    "tabular": ["task=tabular"],
    "regression": ["task=tabular_regression"],
}
OWN_LOSSES = ("mask_rcnn", "retinanet")


@pytest.mark.parametrize(
    ("name", "batch"), [(name, batch) for batch in (2, 5) for name in TASKS if (name, batch) != ("retinanet", 5)]
)
def test_what_is_kept(name: str, batch: int) -> None:
    cfg = load_config(["framework=paddle", "trainer.accelerator=cpu", *TASKS[name]])
    shape = find_data_shape(Experiment(cfg))
    series, kinds = live(trace_steps(cfg, shape, (batch,))[0])
    parameters, forward, backward = real_step(cfg, shape, batch)
    # a network with losses of its own has its gradients from the start, as in every step but the first
    early = backward - parameters if name in OWN_LOSSES else 0
    assert parameters + early == series[kinds.index("data") - 1]
    nearest = min(series, key=lambda size: abs(size - forward - early))
    drawn = 0.02 if early else 2e-3  # how many proposals there are depends on the weights, which are drawn
    assert nearest == pytest.approx(forward + early, rel=drawn, abs=1024)
    assert min(series, key=lambda size: abs(size - backward)) == pytest.approx(backward, abs=64)


@pytest.mark.parametrize("name", ["yolov10n", "mask_rcnn"])
def test_the_line_through_two_batches(name: str) -> None:
    estimator = Estimator(load_config(["framework=paddle", *TASKS[name]]))
    direct = estimator.find_peak(trace_steps(estimator.cfg, estimator.shape, (6,))[0], 6)
    assert estimator.at(6).allocated * MIB == pytest.approx(direct.allocated, rel=0.05)
    assert estimator.at(6).reserved * MIB == pytest.approx(direct.reserved, rel=0.08)
    assert estimator.notes[0] == "Each image is assumed to have 6 objects."
    assert len(estimator.notes) == (2 if name in OWN_LOSSES else 1)


def test_half_precision_takes_less() -> None:
    keys = ["framework=paddle", *TASKS["yolov10n"], "data.batch_size=32"]
    full, half = (estimate(load_config([*keys, f"trainer.precision={kind}"])) for kind in ("32-true", "bf16-mixed"))
    assert 0.5 * full.activations < half.activations < 0.9 * full.activations


def test_what_will_not_fit_and_what_does() -> None:
    gpu = Hardware((Gpu("nvidia", "test", 2000, "8.0"),), None, None, (), "Linux", "", 4, (), 16000, 1000)
    keys = ["framework=paddle", *TASKS["mask_rcnn"]]
    with pytest.raises(UserError, match=r"data\.batch_size=128 needs"):
        fit_memory(load_config([*keys, "data.batch_size=128"]), gpu)
    tried: list[int] = []
    cfg, _ = fit_memory(load_config([*keys, "data.batch_size=auto"]), gpu, lambda cfg: not tried.append(cfg))
    assert 8 < cfg.data.batch_size < 128
    assert 1 <= len(tried) <= 3


@pytest.mark.parametrize("look", [lambda images: float(images.sum()) > 0, lambda images: bool(images.any())])
def test_a_network_that_looks_at_its_pixels_is_trained_all_the_same(
    monkeypatch: pytest.MonkeyPatch, look: Callable[[paddle.Tensor], bool]
) -> None:
    class Looking(paddle.nn.Linear):
        def forward(self, images: paddle.Tensor) -> paddle.Tensor:
            return super().forward(images.flatten(1)) * (2.0 if look(images) else 1.0)

    monkeypatch.setattr("src.kit.paddle.memory_program.build_model", lambda *_: Looking(64, 10))
    gpu = Hardware((Gpu("nvidia", "test", 8000, "8.0"),), None, None, (), "Linux", "", 4, (), 16000, 1000)
    cfg = load_config(["framework=paddle"])
    kept, message = fit_memory(cfg, gpu)
    assert kept == cfg
    assert "cannot be estimated" in message

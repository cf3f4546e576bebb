"""Estimates of detectors, segmentation and tables for PyTorch: exact against its own CPU allocator."""

import pytest
from omegaconf import DictConfig

from memory_lightning import hardware, real_step
from memory_traces import live
from src.kit.config.compose import load_config
from src.kit.errors import UserError
from src.kit.lightning.memory_trace import trace_steps
from src.kit.memory.allocators import MIB, ScaledTrace, simulate_allocator
from src.kit.memory.estimate import Estimator, find_data_shape
from src.kit.memory.fit import fit_memory
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


SCALARS = 1024  # bytes: numbers that kernels keep for themselves, and the shapes of torchvision's anchors


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("batch", [2, 5])
def test_every_byte_that_is_kept(name: str, batch: int) -> None:
    cfg = load_config(TASKS[name])
    shape = find_data_shape(Experiment(cfg))
    parameters, forward, step = real_step(cfg, shape, batch)
    series, kinds = live(trace_steps(cfg, shape, (batch,))[0])
    assert parameters == pytest.approx(series[kinds.index("data") - 1], abs=SCALARS)
    before = kinds.index("gradients")
    assert min(abs(size - forward) for size in series[:before]) <= SCALARS
    assert min(abs(size - step) for size in series[before:]) <= SCALARS


@pytest.mark.parametrize("name", ["yolov10n", "deeplab"])
def test_the_line_through_two_batches_is_exact(name: str) -> None:
    cfg = load_config([*TASKS[name], "trainer.precision=bf16-mixed"])
    shape = find_data_shape(Experiment(cfg))
    line = ScaledTrace((2, 4), trace_steps(cfg, shape, (2, 4)))
    assert line.same_operations
    assert ("handle" in line.traces[0].kinds.values()) == (name == "yolov10n"), "DeepLab has no matrix product"
    assert simulate_allocator(line.at(12), "lightning") == simulate_allocator(
        trace_steps(cfg, shape, (12,))[0], "lightning"
    )


@pytest.mark.parametrize("name", ["mask_rcnn", "retinanet"])
def test_where_images_go_one_by_one_the_peak_is_on_a_line(name: str) -> None:
    cfg = load_config([*TASKS[name], "data.cache=none"])
    estimator = Estimator(cfg)
    direct = estimator.find_peak(trace_steps(cfg, estimator.shape, (16,))[0], 16)
    assert estimator.at(16).allocated * MIB == pytest.approx(direct.allocated, rel=0.02)
    assert 0.92 * direct.reserved < estimator.at(16).reserved * MIB < 1.2 * direct.reserved  # the margin is 18 %
    assert "Batches of 4 and 8 were traced" in estimator.notes[-1]
    assert "6 objects" in estimator.notes[0]


def test_more_objects_take_more() -> None:
    few, many = (Estimator(load_config(["task=detection", f"data={data}", "data.image_size=128"])) for data in
                 ("digit_scenes", "coco128"))  # fmt: skip
    assert (few.shape.objects, many.shape.objects) == (6, 32)
    assert few.at(8).activations < many.at(8).activations


def test_a_batch_that_will_not_fit() -> None:
    keys = ["task=detection", "data=coco128", "data.batch_size=64"]
    with pytest.raises(UserError, match=r"data\.batch_size=64 needs"):
        fit_memory(load_config(keys), hardware(8188))
    cfg, message = fit_memory(load_config([*keys, "trainer.on_oom=adapt"]), hardware(8188))
    assert cfg.data.batch_size * cfg.trainer.accumulate_grad_batches == 64
    assert "training goes on with" in message


@pytest.mark.parametrize(("name", "most"), [("mask_rcnn", 300), ("deeplab", 300), ("tabular", 242)])
def test_auto_is_the_largest_that_fits(name: str, most: int) -> None:
    tried: list[int] = []

    def probe(cfg: DictConfig) -> bool:
        tried.append(cfg.data.batch_size)
        return True

    cfg, _ = fit_memory(load_config([*TASKS[name], "data.batch_size=auto"]), hardware(2000), probe)
    assert 1 <= len(tried) <= 3
    assert 8 < cfg.data.batch_size <= most

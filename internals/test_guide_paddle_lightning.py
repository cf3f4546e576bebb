"""The components of the guide work as they are printed."""

from types import SimpleNamespace

import numpy as np
import paddle
import pytest
import torch
from omegaconf import OmegaConf

from guide import code_blocks, documents, yaml_block
from src.kit.splitting import SplitRule


def component(kind: str, path: str) -> SimpleNamespace:
    module = SimpleNamespace()
    exec(code_blocks(documents(kind)["guide.md"])[path], module.__dict__)
    return module


@pytest.mark.parametrize(("framework", "zeros"), [("lightning", torch.zeros), ("paddle", paddle.zeros)])
def test_the_network(framework, zeros):
    own = OmegaConf.create(yaml_block(documents("everything")["guide.md"], "linear"))
    build = component("everything", f"src/models/{framework}/linear.py").build
    network = build(classes=3, channels=2, image_size=8, dropout=own.dropout)
    assert tuple(network(zeros([4, 2, 8, 8])).shape) == (4, 3)


@pytest.mark.parametrize(("framework", "tensor"), [("lightning", torch.tensor), ("paddle", paddle.to_tensor)])
def test_the_loss(framework, tensor):
    loss = component(framework, f"src/tasks/losses/{framework}/soft_margin.py").build(None, scale=2.0)
    assert float(loss(tensor([[0.5, 0.0]]), tensor([0]))) == pytest.approx(2 * 0.5 / 2)


def test_the_data_set(tmp_path):
    np.save(tmp_path / "images.npy", np.zeros((40, 28, 28, 1), np.uint8))
    np.save(tmp_path / "labels.npy", np.arange(40) % 2)
    rule = SplitRule("train", 0, val_fraction=0.15, test_fraction=0.15)
    split = component("lightning", "src/datasets/arrays.py").build(rule, root=str(tmp_path))
    assert split.class_counts().tolist() == [14, 14]
    assert split.images.shape == (28, 28, 1)


def test_the_metric():
    metric = component("lightning", "src/tasks/metrics/kappa.py").build(weights="linear")
    batch = (np.eye(3)[[0, 1, 2]], np.array([0, 1, 2]))
    assert metric([batch, batch], ["a", "b", "c"]) == 1.0


def test_the_schedule():
    factor = component("lightning", "src/trainers/schedules/polynomial.py").build(total_steps=4, steps_per_epoch=2)
    assert [factor(step) for step in range(5)] == [1.0, 0.5625, 0.25, 0.0625, 0.0]


def test_the_tracker(tmp_path):
    tracker = component("lightning", "src/trainers/trackers/text_file.py").build(tmp_path, {})
    tracker.log({"val/loss": 1.0}, 3)
    assert (tmp_path / "metrics.txt").read_text("utf-8") == "3 {'val/loss': 1.0}\n"

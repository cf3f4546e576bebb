"""Both frameworks give the same loss and the same gradient."""

import numpy as np
import paddle
import pytest
import torch
from omegaconf import OmegaConf

from src import tasks


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("classes", [2, 10])
def test_same_loss_and_gradient(smoothing: float, classes: int) -> None:
    random = np.random.default_rng(0)
    logits = random.normal(scale=3, size=(16, classes)).astype(np.float32)
    targets = random.integers(0, classes, 16)
    cfg = OmegaConf.create({"loss": {"name": "cross_entropy", "label_smoothing": smoothing}})

    ours = torch.tensor(logits, requires_grad=True)
    first = tasks.load_loss(OmegaConf.merge(cfg, {"framework": "lightning"}))(ours, torch.tensor(targets))
    first.backward()
    theirs = paddle.to_tensor(logits, stop_gradient=False)
    second = tasks.load_loss(OmegaConf.merge(cfg, {"framework": "paddle"}))(theirs, paddle.to_tensor(targets))
    second.backward()

    assert second.shape == []
    assert first.item() == pytest.approx(second.item(), abs=1e-6)
    np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), atol=1e-6)

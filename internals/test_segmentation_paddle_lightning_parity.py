"""Segmentation: losses and DeepLabV3+ are the same in both frameworks."""

import numpy as np
import paddle
import pytest
import torch
from omegaconf import OmegaConf

import src.kit.lightning as lightning_kit
import src.kit.paddle as paddle_kit
from redrawn import redrawn
from src.kit.training.networks import build_loss
from src.models.lightning.segmentation import deeplab as lightning
from src.models.paddle.segmentation import deeplab as theirs


@pytest.mark.parametrize(
    ("known", "rare"), [("all", "none"), ("some", "balanced"), ("none", "balanced"), ("some", "log")]
)
@pytest.mark.parametrize("weights", [(1, 0, 0, 2.0), (0, 1, 0, 2.0), (0, 0, 1, 2.0), (0, 0, 1, 0.5), (1, 1, 1, 0.0)])
def test_losses_and_gradients_are_the_same(weights, known, rare):
    random = np.random.default_rng(0)
    logits = random.normal(scale=3, size=(2, 5, 8, 9)).astype(np.float32)
    logits[0, 1, 0, 0] = 300  # a sure pixel
    true = random.integers(0, 4, (2, 8, 9)).astype(np.uint8)  # the last class does not occur
    if known == "some":
        true[0, :3] = 255
    if known == "none":
        true[:] = 255
    counts = np.array([900, 90, 9, 1, 0])
    parts = dict(zip(("cross_entropy", "dice", "focal", "gamma"), weights, strict=True))
    cfg = {"loss": {"name": "pixels", "class_weights": rare, **parts}}
    ours = torch.tensor(logits, requires_grad=True)
    first = build_loss(OmegaConf.create({"framework": "lightning", **cfg}), counts)(ours, torch.tensor(true))
    first.backward()
    others = paddle.to_tensor(logits, stop_gradient=False)
    second = build_loss(OmegaConf.create({"framework": "paddle", **cfg}), counts)(others, paddle.to_tensor(true))
    second.backward()
    assert second.item() == pytest.approx(first.item(), rel=1e-5, abs=1e-6)
    assert (first.item() > 0) == (known != "none")
    assert np.isfinite(ours.grad.numpy()).all()
    np.testing.assert_allclose(ours.grad.numpy(), others.grad.numpy(), atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "mobilenet_v2"])
def test_the_same_weights_give_the_same_logits(backbone, channels):
    keys = {"classes": 4, "channels": channels, "image_size": 64, "backbone": backbone, "width": 16}
    first, second = lightning.build(**keys).eval(), theirs.build(**keys)
    second.eval()
    arrays = redrawn(lightning_kit.weights_to_numpy(first))
    lightning_kit.weights_from_numpy(first, arrays)
    paddle_kit.weights_from_numpy(second, arrays)
    images = np.random.default_rng(1).standard_normal((2, channels, 64, 72), dtype=np.float32)
    with torch.no_grad(), paddle.no_grad():
        a, b = first(torch.tensor(images)).numpy(), second(paddle.to_tensor(images)).numpy()
        fine, coarse = first.backbone(torch.tensor(images))
        other_fine, other_coarse = second.backbone(paddle.to_tensor(images))
    assert a.shape == b.shape == (2, 4, 64, 72)
    assert a.std() > 1e-3
    np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(a).max())
    assert tuple(fine.shape[2:]) == tuple(other_fine.shape[2:]) == (16, 18), "at a quarter of the size"
    assert tuple(coarse.shape[2:]) == tuple(other_coarse.shape[2:]) == (4, 5), "at a sixteenth, not a thirty-second"

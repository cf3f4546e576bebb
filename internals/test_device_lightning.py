"""Batches made on the device in Lightning, and what is set for speed on a GPU."""

from pathlib import Path

import numpy as np
import pytest
import torch

from device_batches import DeviceTests
from src.kit.config.compose import load_config
from src.kit.lightning.device import Batches, DeviceBatches, build_batches
from src.kit.lightning.ranks import gpu_settings
from tests.training import TrainingTests


class TestDeviceLightning(DeviceTests):
    framework, tensor, batches, device_batches = "lightning", torch.Tensor, Batches, DeviceBatches

    def build(self, batches, cache):
        return build_batches(batches, cache, torch.device("cpu"))


class Lightning(TrainingTests):
    __test__ = False
    framework = "lightning"


def test_settings_of_a_gpu_are_decided_by_the_configuration() -> None:
    def decide(*keys: str) -> tuple[object, ...]:
        return tuple(gpu_settings(load_config(list(keys)), True).values())

    assert gpu_settings(load_config([]), False) == {}
    assert decide() == ("high", True, False, True)  # TF32, channels last, cuDNN's trials, a fused optimizer
    assert decide("deterministic=false") == ("high", True, True, True)
    assert decide("trainer.strategy=fsdp") == ("high", False, False, True)
    clipped = ["trainer.gradient_clip_val=1.0", "trainer.precision=bf16-mixed"]
    assert decide(*clipped) == ("high", True, False, False)
    assert decide(clipped[0]) == ("high", True, False, True)


def test_settings_of_a_gpu_are_logged_and_change_no_weight_s_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained with them on this CPU: the layout and TF32 change float32's last digits at most."""
    _, plain = Lightning().run(tmp_path / "plain")
    monkeypatch.setattr("src.kit.lightning.ranks.gpu_settings", lambda cfg, gpu: gpu_settings(cfg, True))
    before = torch.get_float32_matmul_precision()
    try:
        run, tuned = Lightning().run(tmp_path / "tuned")
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)
    for name, weights in plain.items():
        np.testing.assert_allclose(tuned[name], weights, rtol=1e-2, atol=1e-3)
    settings = "float32_matmul_precision=high, channels_last=True, cudnn_benchmark=False, fused_optimizer=True"
    assert f"On the GPU: {settings}." in (run / "train.log").read_text("utf-8")

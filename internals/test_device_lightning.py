"""Batches made on the device in Lightning."""

import torch

from device_batches import DeviceTests
from src.kit.lightning.device import Batches, DeviceBatches, build_batches


class TestDeviceLightning(DeviceTests):
    framework, tensor, batches, device_batches = "lightning", torch.Tensor, Batches, DeviceBatches

    def build(self, batches, cache):
        return build_batches(batches, cache, torch.device("cpu"))

"""Batches made on the device in Paddle."""

import paddle

from device_batches import DeviceTests
from src.kit.paddle.devices import Batches, DeviceBatches, build_batches


class TestDevicePaddle(DeviceTests):
    framework, tensor, batches, device_batches = "paddle", paddle.Tensor, Batches, DeviceBatches

    def build(self, batches, cache):
        return build_batches(batches, cache)

"""Batches made on the device in Paddle, and the processes that train on devices."""

import os
import subprocess
import sys
import time

import paddle

from device_batches import DeviceTests
from paths import TEMPLATE
from src.kit.paddle.devices import Batches, DeviceBatches, build_batches


class TestDevicePaddle(DeviceTests):
    framework, tensor, batches, device_batches = "paddle", paddle.Tensor, Batches, DeviceBatches

    def build(self, batches, cache):
        return build_batches(batches, cache)


ORPHAN = """
import multiprocessing, os, sys, time
from pathlib import Path

folder = Path(sys.argv[1])

def begin():
    (folder / "begun").touch()
    while os.getppid() == multiprocessing.parent_process().pid:
        time.sleep(0.05)  # as the import of Paddle takes time
    from src.kit.paddle import devices

    devices.connect = lambda: None
    devices.start_rank(go_on, {}, folder, None, set(), "")

def go_on(*arguments):
    time.sleep(3)
    (folder / "outlived").touch()

if __name__ == "__main__":
    multiprocessing.get_context("spawn").Process(target=begin).start()
    time.sleep(60)
"""


def test_a_rank_ends_whose_starter_was_killed_before_the_rank_had_imported_paddle(tmp_path):
    (tmp_path / "orphan.py").write_text(ORPHAN, "utf-8")
    command = [sys.executable, str(tmp_path / "orphan.py"), str(tmp_path)]
    mine, its = os.pipe()  # which the rank holds open
    environment = {**os.environ, "PYTHONPATH": str(TEMPLATE)}
    with subprocess.Popen(command, stdout=its, stderr=its, env=environment) as starter:
        os.close(its)
        while not (tmp_path / "begun").exists():
            assert starter.poll() is None
            time.sleep(0.05)
        starter.kill()
    while os.read(mine, 1 << 16):
        pass
    os.close(mine)
    assert not (tmp_path / "outlived").exists()

"""Paddle's matrix products on AMD's processors."""

import os

import numpy as np
import paddle
import pytest

from src.kit.hardware.probe import SystemProbe
from src.kit.paddle.devices import use_avx2

AMD = "vendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC\nflags\t\t: fpu sse2 avx avx2 fma\n"
INTEL = AMD.replace("AuthenticAMD", "GenuineIntel")


class Recorded(SystemProbe):
    """A Linux machine with that /proc/cpuinfo."""

    def __init__(self, cpuinfo: str) -> None:
        super().__init__()
        self.system, self.cpuinfo = "Linux", cpuinfo

    def read(self, path: str) -> str | None:
        return self.cpuinfo if path == "/proc/cpuinfo" else None


@pytest.mark.parametrize(
    ("cpuinfo", "value"),
    [
        (AMD, "5"),
        (AMD.replace("AuthenticAMD", "HygonGenuine"), "5"),
        (AMD.replace("avx2", "avx"), None),
        (INTEL, None),
        ("", None),
    ],
    ids=["amd", "hygon", "amd without avx2", "intel", "unknown"],
)
def test_only_processors_that_are_slowed_down(monkeypatch, cpuinfo, value):
    monkeypatch.delenv("MKL_DEBUG_CPU_TYPE", raising=False)
    use_avx2(Recorded(cpuinfo))
    assert os.environ.get("MKL_DEBUG_CPU_TYPE") == value
    monkeypatch.delenv("MKL_DEBUG_CPU_TYPE", raising=False)


def test_a_value_of_the_users_stays(monkeypatch):
    monkeypatch.setenv("MKL_DEBUG_CPU_TYPE", "4")
    use_avx2(Recorded(AMD))
    assert os.environ["MKL_DEBUG_CPU_TYPE"] == "4"


def test_products_are_as_exact_as_before():
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((64, 512)), rng.standard_normal((512, 96))
    found = paddle.matmul(paddle.to_tensor(left, "float32"), paddle.to_tensor(right, "float32")).numpy()
    assert np.abs(found - left @ right).max() < 1e-4

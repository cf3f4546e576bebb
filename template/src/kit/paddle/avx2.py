"""AVX2 for Paddle's matrix products on AMD's processors."""

import os

from src.kit.hardware import SystemProbe, cpu_model, instructions


def use_avx2(probe: SystemProbe) -> None:
    """Set MKL_DEBUG_CPU_TYPE, unless it is set; call this before the first matrix product of the process.

    Paddle's builds for x86 bundle Intel's MKL of 2019, which takes its slowest path on all other processors: with AVX2
    a training step of ResNet-18 is 2.6 times as fast (AMD EPYC, one core). Intel's own processors are left alone, since
    the variable would switch off their AVX-512.
    """
    vendor = probe.read("/proc/cpuinfo") or cpu_model(probe)  # Windows names the vendor with the model
    if "AVX2" in instructions(probe) and ("AuthenticAMD" in vendor or "HygonGenuine" in vendor):
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")

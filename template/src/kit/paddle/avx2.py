"""Let Paddle's matrix products use AVX2 on AMD's processors."""

import os

from src.kit.hardware import SystemProbe, cpu_model, instructions


def use_avx2(probe: SystemProbe) -> None:
    """Set MKL_DEBUG_CPU_TYPE, unless it is set; call this before the first matrix product of the process.

    Paddle's builds for x86 bundle Intel's MKL of 2019, which takes its slowest code on any processor but Intel's: a
    training step of ResNet-18 takes 2.6 times as long as it must (AMD EPYC, one core). Intel's own processors are left
    alone, where the variable would switch AVX-512 off.
    """
    vendor = probe.read("/proc/cpuinfo") or cpu_model(probe)  # Windows names the vendor with the model
    if "AVX2" in instructions(probe) and ("AuthenticAMD" in vendor or "HygonGenuine" in vendor):
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")

"""Detect this machine's hardware, recommend settings for it, and check whether the environment can train.

Standard library only (`show_rich` needs rich), since `scripts/doctor.py` must run where nothing is installed.
"""

from src.kit.hardware.containers import check_containers
from src.kit.hardware.diagnosis import (
    Diagnosis,
    auto_precision,
    batch_size,
    dataset_tier,
    facts,
    recommend,
    show_plain,
    show_rich,
)
from src.kit.hardware.environment import MODULES, check_environment, cuda_build, required_cuda
from src.kit.hardware.hardware import Gpu, Hardware, detect
from src.kit.hardware.probe import (
    SystemProbe,
    Utilisation,
    cores,
    cpu_model,
    free_ram,
    instructions,
    peak_flops,
    peak_mib,
    resident_bytes,
)

__all__ = [
    "MODULES",
    "Diagnosis",
    "Gpu",
    "Hardware",
    "SystemProbe",
    "Utilisation",
    "auto_precision",
    "batch_size",
    "check_containers",
    "check_environment",
    "cores",
    "cpu_model",
    "cuda_build",
    "dataset_tier",
    "detect",
    "facts",
    "free_ram",
    "instructions",
    "peak_flops",
    "peak_mib",
    "recommend",
    "required_cuda",
    "resident_bytes",
    "show_plain",
    "show_rich",
]

"""What this machine has: GPUs, memory, cores; what to do about what is missing."""

from src.kit.hardware.diagnosis import Diagnosis, facts, show_plain, show_rich
from src.kit.hardware.environment import check_environment
from src.kit.hardware.frameworks import required_cuda
from src.kit.hardware.free_memory import free_ram
from src.kit.hardware.gpu_speed import Utilisation, peak_flops
from src.kit.hardware.hardware import Hardware, detect
from src.kit.hardware.host import cores, cpu_model, instructions
from src.kit.hardware.machine import Machine
from src.kit.hardware.process_memory import peak_mib
from src.kit.hardware.recommend import batch_size, dataset_tier, recommend

__all__ = [
    "Diagnosis",
    "Hardware",
    "Machine",
    "Utilisation",
    "batch_size",
    "check_environment",
    "cores",
    "cpu_model",
    "dataset_tier",
    "detect",
    "facts",
    "free_ram",
    "instructions",
    "peak_flops",
    "peak_mib",
    "recommend",
    "required_cuda",
    "show_plain",
    "show_rich",
]

"""What the machine suggests: requirements file, data-set tier, batch size, workers, precision, each with its reason."""

import re
from dataclasses import dataclass

from src.kit.hardware.hardware import Gpu, Hardware
from src.kit.hardware.packages import release

# A driver reports less than a card was sold with: error correction and firmware take up to 7.1 % (Tesla P4, 8 GB:
# 7611 MiB; RTX 4060, 8 GB: 8188), so 92.5 % of 8 GiB counts as 8 GB. No card reports more, so whatever was sold as
# 16 GB (T4: 15360 MiB, RTX 4080: 16376) stays at or below 16 GiB, and the next size up (20 GB: 19968) is above it.
EIGHT_GB_MIB = 7578
SIXTEEN_GB_MIB = 16384


@dataclass(frozen=True)
class Recommendation:
    """`name` is the config key to override, or "requirements" and "dataset_tier", which are no config keys."""

    name: str
    value: str | int
    reason: str


def recommend(hardware: Hardware, cuda: str | None = None) -> list[Recommendation]:
    """One recommendation for each of the five names, in a fixed order.

    Args:
        cuda: the CUDA version that `requirements-gpu.txt` installs, None where that is not known.
    """
    return [
        Recommendation("requirements", *requirements(hardware, cuda)),
        Recommendation("dataset_tier", *dataset_tier(hardware)),
        Recommendation("data.batch_size", *batch_size(hardware)),
        Recommendation("data.num_workers", *num_workers(hardware)),
        Recommendation("trainer.precision", *precision(hardware)),
    ]


def requirements(hardware: Hardware, cuda: str | None) -> tuple[str, str]:
    """The requirements file; CUDA builds run on every driver of the same major version or a later one."""
    vendors = {gpu.vendor for gpu in hardware.gpus}
    if not vendors:
        return "requirements-cpu.txt", "there is no GPU that can be used"
    if "apple" in vendors:
        return "requirements-cpu.txt", "the macOS builds in it hold the Metal backend"
    if "amd" in vendors:
        return (
            "requirements-cpu.txt",
            "requirements-gpu.txt is for CUDA; for this GPU install PyTorch's ROCm build by hand",
        )
    highest = hardware.cuda
    if cuda and highest and release(cuda)[:1] > release(highest)[:1]:
        reason = (
            f"driver {hardware.driver} supports CUDA {highest}, too old for the CUDA {cuda} of requirements-gpu.txt"
        )
        return "requirements-cpu.txt", reason
    return "requirements-gpu.txt", f"driver {hardware.driver} supports CUDA {highest or 'of an unknown version'}"


def dataset_tier(hardware: Hardware) -> tuple[str, str]:
    """The tier "debug", "production-conservative" (8 to 16 GB, both included) or "production-full", and the reason."""
    memory = hardware.smallest_gpu_mib
    if not hardware.gpus:
        return "debug", "training runs on the processor"
    subject = "the GPU has" if len(hardware.gpus) == 1 else f"the smallest of {len(hardware.gpus)} GPUs has"
    if not memory:
        return "debug", "the GPU does not tell how much memory it has"
    if memory < EIGHT_GB_MIB:
        return "debug", f"{subject} {gib(memory)}, less than 8 GB"
    if memory <= SIXTEEN_GB_MIB:
        return "production-conservative", f"{subject} {gib(memory)}, between 8 and 16 GB"
    return "production-full", f"{subject} {gib(memory)}, more than 16 GB"


def batch_size(hardware: Hardware) -> tuple[int, str]:
    """Samples a step on each device: a start that fits ResNet-50 at 224 x 224, in 32 bits, with room to spare."""
    memory = hardware.smallest_gpu_mib
    if not hardware.gpus:
        small = 0 < hardware.ram_mib < 4096
        return (
            (16, f"{gib(hardware.ram_mib)} of RAM") if small else (32, "a processor gains nothing from larger batches")
        )
    for limit, size in ((EIGHT_GB_MIB, 32), (SIXTEEN_GB_MIB + 1, 64), (40000, 128)):
        if memory < limit:
            return size, f"fits a ResNet-50 at 224 x 224 into {gib(memory)} on each GPU"
    return 256, f"{gib(memory)} on each GPU would hold more, but larger batches need another learning rate"


def num_workers(hardware: Hardware) -> tuple[int, str]:
    """Threads that decode images, for each process that trains."""
    gpus = max(1, len(hardware.gpus))
    if not hardware.gpus:
        return max(
            1, min(4, hardware.cores // 2)
        ), f"half of {plural(hardware.cores, 'core')}: training needs the others"
    share = f"{plural(hardware.cores, 'core')} for {plural(gpus, 'GPU')}"
    return max(1, min(8, hardware.cores // gpus)), f"{share}; more than 8 each seldom help"


def precision(hardware: Hardware) -> tuple[str, str]:
    """bf16 where every GPU computes in it, else fp16 where it is fast, else fp32."""
    if not hardware.gpus:
        return "32-true", "mixed precision is for GPUs"
    weakest = min((mixed(gpu) for gpu in hardware.gpus), key=("fp32", "fp16", "bf16").index)
    names = ", ".join(sorted({f"{gpu.model} ({gpu.compute_capability or 'unknown'})" for gpu in hardware.gpus}))
    if weakest == "bf16":
        return "bf16-mixed", f"computes in bf16, which needs no loss scaling: {names}"
    if weakest == "fp16":
        return "16-mixed", f"fast in fp16 but without bf16: {names}"
    return "32-true", f"no fast half precision: {names}"


def mixed(gpu: Gpu) -> str:
    """The best of bf16, fp16, fp32: tensor cores take fp16 since Volta (7.0) and bf16 since Ampere (8.0)."""
    capability = gpu.compute_capability or ""
    if gpu.vendor == "nvidia" and capability:
        return "bf16" if release(capability) >= (8,) else "fp16" if release(capability) >= (7,) else "fp32"
    if gpu.vendor == "amd" and capability:
        # Matrix units since Instinct MI100 (gfx908) and Radeon RX 7000 (gfx11).
        return "bf16" if re.match(r"gfx(908|90a|9[45]|1[12])", capability) else "fp16"
    return "fp32"


def gib(mib: int) -> str:
    """12288 -> "12.0 GiB"."""
    return f"{mib / 1024:.1f} GiB"


def plural(count: int, noun: str) -> str:
    """1 -> "1 core", 2 -> "2 cores"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"

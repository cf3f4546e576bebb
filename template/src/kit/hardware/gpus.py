"""What a GPU is to this project, and how AMD's and Apple's are found (NVIDIA's: nvidia.py)."""

import json
import re
from dataclasses import dataclass
from typing import NamedTuple

from src.kit.hardware.host import sysctl
from src.kit.hardware.machine import Machine

INTEGRATED_MIB = 1024  # AMD processors carry a small display GPU with a carve-out below 1 GiB; nobody trains on it


@dataclass(frozen=True)
class Gpu:
    """One GPU, or one MIG instance of a GPU that is split.

    `vendor` is "nvidia", "amd" or "apple". `memory_mib` is what the driver reports, in MiB; 0 where it does not tell.
    `compute_capability` is NVIDIA's "8.0" or AMD's target "gfx942"; None where it is unknown or there is no such thing.
    """

    vendor: str
    model: str
    memory_mib: int
    compute_capability: str | None = None
    mig: bool = False


class Found(NamedTuple):
    """GPUs that can be used, driver version, highest CUDA version it supports, and a sentence on each thing amiss."""

    gpus: tuple[Gpu, ...] = ()
    driver: str | None = None
    cuda: str | None = None
    notes: tuple[str, ...] = ()


def find_amd(machine: Machine) -> Found:
    """AMD GPUs that the compute driver (kfd) offers, by `rocm-smi`, else by sysfs."""
    if machine.system != "Linux" or not machine.glob("/sys/class/kfd/kfd/topology/nodes/*"):
        return Found()
    answer = machine.run(["rocm-smi", "--showproductname", "--showmeminfo", "vram", "--showdriverversion", "--json"])
    driver = (machine.read("/sys/module/amdgpu/version") or "").strip() or None
    try:
        # Warnings may stand before the JSON.
        cards = json.loads(answer.output[answer.output.index("{") :]) if answer else {}
        driver = cards.pop("system", {}).get("Driver version", driver)
        gpus = [amd_gpu(card) for _, card in sorted(cards.items(), key=lambda item: int(item[0].removeprefix("card")))]
    except (ValueError, AttributeError):
        gpus = []
    gpus = [gpu for gpu in gpus or drm_gpus(machine) if gpu.memory_mib >= INTEGRATED_MIB]
    notes = ("rocm-smi did not answer in time.",) if answer and answer.code is None else ()
    return Found(tuple(gpus), driver if gpus else None, None, notes)


def amd_gpu(card: dict[str, str]) -> Gpu:
    """One entry of `rocm-smi --json`; releases differ in the keys' capital letters."""
    values = {key.lower(): str(value) for key, value in card.items()}
    name = values.get("card series", "")
    if not name or name == "N/A":
        name = values.get("card model", "AMD GPU")
    target = re.match(r"gfx\w+", values.get("gfx version", ""))
    return Gpu("amd", name, int(values.get("vram total memory (b)", "0")) >> 20, target[0] if target else None)


def drm_gpus(machine: Machine) -> list[Gpu]:
    """AMD GPUs by the kernel's display tree, for machines with the driver but without `rocm-smi`."""
    gpus = []
    for path in machine.glob("/sys/class/drm/card[0-9]*/device/mem_info_vram_total"):
        folder = path.rsplit("/", 1)[0]
        size = (machine.read(path) or "").strip()
        if (machine.read(f"{folder}/vendor") or "").strip() == "0x1002" and size.isdigit():
            name = (machine.read(f"{folder}/product_name") or "").strip() or "AMD GPU"
            gpus.append(Gpu("amd", name, int(size) >> 20))
    return gpus


def find_apple(machine: Machine, ram_mib: int) -> Found:
    """The GPU of an Apple chip; it shares the RAM, of which macOS lets it use about two thirds."""
    if machine.system != "Darwin" or machine.arch != "arm64":
        return Found()
    model = sysctl(machine, "machdep.cpu.brand_string") or "Apple silicon"
    return Found((Gpu("apple", model, ram_mib * 2 // 3),))

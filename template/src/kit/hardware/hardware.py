"""The machine's hardware, found with the standard library alone and remembered in the git-ignored `.hardware.json`."""

import contextlib
import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from src.kit.hardware import host
from src.kit.hardware.gpus import Found, Gpu, find_amd, find_apple
from src.kit.hardware.machine import Machine
from src.kit.hardware.nvidia import find_nvidia

__all__ = ["Gpu", "Hardware", "detect"]

ROOT = Path(__file__).resolve().parents[3]
CACHE = ".hardware.json"
FORMAT = 1  # of the cache file: raise it when a field of Hardware or Gpu changes its meaning


@dataclass(frozen=True)
class Hardware:
    """What this process may use.

    `gpus` holds MIG instances in place of a GPU that is split. `driver` is the GPU driver's version, `cuda` the highest
    CUDA version it supports, `instructions` the processor's vector extensions ("AVX2"), `cores` counts affinity and
    cgroup quota, `ram_mib` the cgroup's limit. Sizes are in MiB, 0 where unknown. `notes` says what could not be found
    out, in whole sentences.
    """

    gpus: tuple[Gpu, ...]
    driver: str | None
    cuda: str | None
    notes: tuple[str, ...]
    system: str
    cpu: str
    cores: int
    instructions: tuple[str, ...]
    ram_mib: int
    disk_free_mib: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON; `from_dict` takes it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Hardware":
        """Raises TypeError or KeyError where the fields are not exactly those of Hardware and Gpu."""
        gpus = tuple(Gpu(**gpu) for gpu in values["gpus"])
        lists = {name: tuple(values[name]) for name in ("notes", "instructions")}
        return cls(**{**values, "gpus": gpus, **lists})

    @property
    def smallest_gpu_mib(self) -> int:
        """Memory of the smallest GPU: it decides what fits when all of them train together; 0 without GPUs."""
        return min((gpu.memory_mib for gpu in self.gpus), default=0)


def detect(refresh: bool = False, machine: Machine | None = None, root: Path = ROOT) -> Hardware:
    """Look at the machine; GPUs are taken from the cache, where it holds this machine's, since asking for them is slow.

    The rest costs a few milliseconds and changes from process to process (a container's limits, free disk), so it is
    always looked at. A root that cannot be written leaves nothing cached.
    """
    machine = machine or Machine()
    key = fingerprint(machine)
    ram = host.ram_mib(machine)
    cached = None if refresh else load_gpus(root / CACHE, key)
    found = cached or find_gpus(machine, ram)
    hardware = Hardware(
        **found._asdict(),
        system=f"{machine.system} {machine.arch}",
        cpu=host.cpu_model(machine),
        cores=host.cores(machine),
        instructions=host.instructions(machine),
        ram_mib=ram,
        disk_free_mib=machine.disk_free_mib(root),
    )
    if cached is None:
        save(root / CACHE, key, hardware)
    return hardware


def find_gpus(machine: Machine, ram_mib: int) -> Found:
    """The first vendor of whom there are GPUs, with what was amiss at any."""
    notes: tuple[str, ...] = ()
    for found in (find_nvidia(machine, ram_mib), find_amd(machine), find_apple(machine, ram_mib)):
        notes += found.notes
        if found.gpus:
            return found._replace(notes=notes)
    return Found(notes=notes)


def fingerprint(machine: Machine) -> str:
    """Changes with the machine, its boot, its GPU driver, and the GPUs or MIG instances given to this container."""
    files = ("/proc/sys/kernel/random/boot_id", "/proc/driver/nvidia/version")
    globs = ("/dev/nvidia[0-9]*", "/proc/driver/nvidia/capabilities/gpu*/mig/gi*", "/dev/kfd", "/dev/dri/renderD*")
    parts = [machine.name, machine.system, machine.arch, *(str(machine.read(path)) for path in files)]
    parts += [str(machine.glob(pattern)) for pattern in globs]
    parts += [machine.program_age(program) for program in ("nvidia-smi", "rocm-smi")]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def load_gpus(path: Path, key: str) -> Found | None:
    """The cached GPUs; None where the file is missing, damaged, of another format or of another machine."""
    try:
        cache = json.loads(path.read_text(encoding="utf-8"))
        if (cache["format"], cache["key"]) != (FORMAT, key):
            return None
        hardware = Hardware.from_dict(cache["hardware"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return Found(hardware.gpus, hardware.driver, hardware.cuda, hardware.notes)


def save(path: Path, key: str, hardware: Hardware) -> None:
    """Write the cache as a whole or not at all; several processes may do so at once."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    text = json.dumps({"format": FORMAT, "key": key, "hardware": hardware.to_dict()}, indent=2)
    try:
        temporary.write_text(text + "\n", encoding="utf-8")
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()

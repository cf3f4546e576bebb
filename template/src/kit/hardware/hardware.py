"""Detect what this process may train on: GPUs (NVIDIA, AMD, Apple), driver, processor, memory, disk.

Standard library only. GPUs are cached in the git-ignored `.hardware.json`, since asking for them is slow.
"""

import contextlib
import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from src.kit.hardware.probe import Answer, SystemProbe, cores, cpu_model, instructions, ram_mib, sysctl

ROOT = Path(__file__).resolve().parents[3]
CACHE = ".hardware.json"
CACHE_FORMAT = 1  # raise it when a field of Hardware or Gpu changes its meaning
INTEGRATED_MIB = 1024  # AMD processors include a small display GPU with less memory than this; nobody trains on it
NVIDIA_FIELDS = ("driver_version", "memory.total", "mig.mode.current", "compute_cap", "name")

# Driver branch -> highest CUDA version, from the CUDA toolkit's release notes; for an nvidia-smi that doesn't name it.
DRIVER_CUDA = {
    590: "13.1", 580: "13.0", 575: "12.9", 570: "12.8", 560: "12.6", 555: "12.5", 550: "12.4", 545: "12.3", 535: "12.2",
    530: "12.1", 525: "12.0", 520: "11.8", 515: "11.7", 510: "11.6", 495: "11.5", 470: "11.4", 465: "11.3", 460: "11.2",
    455: "11.1", 450: "11.0", 440: "10.2", 418: "10.1", 410: "10.0",
}  # fmt: skip

# Drivers before 510 don't report the compute capability. They support nothing newer than Ampere, so no newer rows here.
CAPABILITIES = (
    (r"A100|A30\b|A800", "8.0"),
    (r"RTX 30\d0|RTX A\d000|\bA(2|10|10G|16|40)\b", "8.6"),
    (r"\bT4\b|RTX 20\d0|GTX 16\d0|TITAN RTX|Quadro RTX|T\d{3,4}\b", "7.5"),
    (r"V100|TITAN V|GV100", "7.0"),
    (r"P100|GP100", "6.0"),
    (r"GTX 10\d0|TITAN X|\bP(4|6|40)\b|Quadro P\d", "6.1"),
    (r"GTX 9\d0|\bM(4|6|10|40|60)\b", "5.2"),
    (r"K80|K40", "3.5"),
)


@dataclass(frozen=True)
class Gpu:
    """One GPU, or one MIG instance of a split GPU.

    `vendor` is "nvidia", "amd" or "apple". `memory_mib` is what the driver reports, in MiB; 0 if unknown.
    `compute_capability` is NVIDIA's "8.0" or AMD's target "gfx942"; None if unknown or not applicable.
    """

    vendor: str
    model: str
    memory_mib: int
    compute_capability: str | None = None
    mig: bool = False


class GpuReport(NamedTuple):
    """Usable GPUs, driver version, highest CUDA version it supports, and a sentence about each problem."""

    gpus: tuple[Gpu, ...] = ()
    driver: str | None = None
    cuda: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Hardware:
    """What this process may use. Sizes are in MiB, 0 if unknown.

    Attributes:
        gpus: GPUs; MIG instances replace the GPU they split.
        driver: version of the GPU driver.
        cuda: highest CUDA version that the driver supports.
        notes: what could not be detected, in whole sentences.
        cores: within CPU affinity and cgroup quota.
        instructions: the processor's vector extensions, such as "AVX2".
        ram_mib: within the cgroup's limit.
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
        """Return plain values for JSON; `from_dict` reverses it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Hardware":
        """Raises TypeError or KeyError unless the fields are exactly those of Hardware and Gpu."""
        gpus = tuple(Gpu(**gpu) for gpu in values["gpus"])
        lists = {name: tuple(values[name]) for name in ("notes", "instructions")}
        return cls(**{**values, "gpus": gpus, **lists})

    @property
    def smallest_gpu_mib(self) -> int:
        """Memory of the smallest GPU, which decides what fits when all train together; 0 without GPUs."""
        return min((gpu.memory_mib for gpu in self.gpus), default=0)


def detect(refresh: bool = False, probe: SystemProbe | None = None, root: Path = ROOT) -> Hardware:
    """Detect the hardware; GPUs come from the cache if it was written on this machine.

    Everything else takes milliseconds and changes between processes (a container's limits, free disk), so it is never
    cached. If `root` isn't writable, nothing is cached.

    Args:
        refresh: detect the GPUs again.
        probe: tests pass a recorded machine.
    """
    probe = probe or SystemProbe()
    key = fingerprint(probe)
    ram = ram_mib(probe)
    cached = None if refresh else load_cached_gpus(root / CACHE, key)
    report = cached or detect_gpus(probe, ram)
    hardware = Hardware(
        **report._asdict(),
        system=f"{probe.system} {probe.arch}",
        cpu=cpu_model(probe),
        cores=cores(probe),
        instructions=instructions(probe),
        ram_mib=ram,
        disk_free_mib=probe.disk_free_mib(root),
    )
    if cached is None:
        save_cache(root / CACHE, key, hardware)
    return hardware


def detect_gpus(probe: SystemProbe, ram_mib: int) -> GpuReport:
    """Return the GPUs of the first vendor that has any, with the notes about all vendors tried."""
    notes: tuple[str, ...] = ()
    for report in (detect_nvidia(probe, ram_mib), detect_amd(probe), detect_apple(probe, ram_mib)):
        notes += report.notes
        if report.gpus:
            return report._replace(notes=notes)
    return GpuReport(notes=notes)


def fingerprint(probe: SystemProbe) -> str:
    """Return a hash of the machine, its boot, its GPU driver, and the GPUs or MIG instances of this container."""
    files = ("/proc/sys/kernel/random/boot_id", "/proc/driver/nvidia/version")
    globs = ("/dev/nvidia[0-9]*", "/proc/driver/nvidia/capabilities/gpu*/mig/gi*", "/dev/kfd", "/dev/dri/renderD*")
    parts = [probe.name, probe.system, probe.arch, *(str(probe.read(path)) for path in files)]
    parts += [str(probe.glob(pattern)) for pattern in globs]
    parts += [probe.program_version_key(program) for program in ("nvidia-smi", "rocm-smi")]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def load_cached_gpus(path: Path, key: str) -> GpuReport | None:
    """Return the cached GPUs; None if the file is missing, damaged, of another format or from another machine."""
    try:
        cache = json.loads(path.read_text(encoding="utf-8"))
        if (cache["format"], cache["key"]) != (CACHE_FORMAT, key):
            return None
        hardware = Hardware.from_dict(cache["hardware"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return GpuReport(hardware.gpus, hardware.driver, hardware.cuda, hardware.notes)


def save_cache(path: Path, key: str, hardware: Hardware) -> None:
    """Write the cache atomically or not at all; several processes may write at once."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    text = json.dumps({"format": CACHE_FORMAT, "key": key, "hardware": hardware.to_dict()}, indent=2)
    try:
        temporary.write_text(text + "\n", encoding="utf-8")
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()


def detect_nvidia(probe: SystemProbe, ram_mib: int) -> GpuReport:
    """Return NVIDIA's usable GPUs by `nvidia-smi`; if it hangs, fails or prints garbage, a note says so."""
    fields: tuple[str, ...] = NVIDIA_FIELDS
    answer = query_nvidia_smi(probe, fields)
    if answer is None:
        return report_no_nvidia_smi(probe)
    while (unknown := re.search(r'Field "([\w.]+)" is not a valid', answer.output)) and unknown[1] in fields:
        fields = tuple(field for field in fields if field != unknown[1])  # an old driver
        answer = query_nvidia_smi(probe, fields) or Answer(1, "")
    if answer.code is None:
        return GpuReport(notes=(f"nvidia-smi did not answer within {probe.timeout_s:g} s.",))
    if answer.code:
        message = next(iter(answer.output.strip().splitlines()), "nothing")
        return GpuReport(notes=(f"nvidia-smi failed with exit code {answer.code} and printed: {message[:200]}",))
    summary = probe.run(["nvidia-smi"]) or Answer(0, "")
    instances = mig_instances(summary.output)
    gpus: list[Gpu] = []
    notes: list[str] = []
    driver = None
    for index, line in enumerate(answer.output.strip().splitlines()):
        row = dict(zip(fields, (value.strip() for value in line.split(",", len(fields) - 1)), strict=False))
        if not re.fullmatch(r"\d+\.[\d.]+", row.get("driver_version", "")) or not row.get("name"):
            notes.append(f"nvidia-smi printed a line that cannot be read: {line[:200]!r}")
            continue
        driver = row["driver_version"]
        if row.get("mig.mode.current") != "Enabled":
            gpus.append(Gpu("nvidia", row["name"], gpu_memory_mib(row["memory.total"], ram_mib), capability(row)))
            continue
        gpus += [Gpu("nvidia", f"{row['name']} MIG", size, capability(row), True) for size in instances.get(index, [])]
        if index not in instances:
            notes.append(f"GPU {index} ({row['name']}) is in MIG mode but has no instance that this process may use.")
    return GpuReport(tuple(gpus), driver, cuda_version(summary.output, driver), tuple(notes))


def query_nvidia_smi(probe: SystemProbe, fields: tuple[str, ...]) -> Answer | None:
    """Query one CSV line for each GPU, with the name last, the only field that might hold a comma."""
    return probe.run(["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"])


def report_no_nvidia_smi(probe: SystemProbe) -> GpuReport:
    """Return no GPU, with a note if the driver is loaded anyway, as in a container started without GPUs."""
    if probe.read("/proc/driver/nvidia/version") is None:
        return GpuReport()
    return GpuReport(
        notes=("An NVIDIA driver is loaded but nvidia-smi is missing: start the container with `--gpus all`.",)
    )


def gpu_memory_mib(text: str, ram_mib: int) -> int:
    """Parse nvidia-smi's MiB; a GPU that shares the RAM (Jetson, GB10) answers [N/A] and may use all of it."""
    if text.isdigit():
        return int(text)
    return ram_mib if text in ("[N/A]", "[Not Supported]") else 0


def capability(row: dict[str, str]) -> str | None:
    """Return the compute capability, such as "8.0"."""
    if re.fullmatch(r"\d+\.\d+", row.get("compute_cap", "")):
        return row["compute_cap"]
    return next((value for pattern, value in CAPABILITIES if re.search(pattern, row["name"])), None)


def mig_instances(summary: str) -> dict[int, list[int]]:
    """Return GPU index -> MiB of each of its MIG instances, from the second table of a bare `nvidia-smi`.

    Compute instances that share one GPU instance share its memory; only the first row states it.
    """
    instances: dict[int, list[int]] = {}
    table = summary.partition("MIG devices:")[2]
    for row in re.finditer(r"^\|\s+(\d+)\s+\d+\s+\d+\s+\d+\s+\|\s+\d+MiB\s*/\s*(\d+)MiB", table, re.MULTILINE):
        instances.setdefault(int(row[1]), []).append(int(row[2]))
    return instances


def cuda_version(summary: str, driver: str | None) -> str | None:
    """Return the highest CUDA version that the driver supports; since branch 610 it is headed "CUDA UMD Version"."""
    match = re.search(r"CUDA(?: UMD)? Version\s*:\s*(\d+\.\d+)", summary)
    if match:
        return match[1]
    branch = int(driver.partition(".")[0]) if driver else 0
    return next((cuda for oldest, cuda in DRIVER_CUDA.items() if branch >= oldest), None)


def detect_amd(probe: SystemProbe) -> GpuReport:
    """Return AMD GPUs that the compute driver (kfd) offers, by `rocm-smi`, or else by sysfs."""
    if probe.system != "Linux" or not probe.glob("/sys/class/kfd/kfd/topology/nodes/*"):
        return GpuReport()
    answer = probe.run(["rocm-smi", "--showproductname", "--showmeminfo", "vram", "--showdriverversion", "--json"])
    driver = (probe.read("/sys/module/amdgpu/version") or "").strip() or None
    try:
        # Warnings may precede the JSON.
        cards = json.loads(answer.output[answer.output.index("{") :]) if answer else {}
        driver = cards.pop("system", {}).get("Driver version", driver)
        gpus = [amd_gpu(card) for _, card in sorted(cards.items(), key=lambda item: int(item[0].removeprefix("card")))]
    except (ValueError, AttributeError):
        gpus = []
    gpus = [gpu for gpu in gpus or sysfs_amd_gpus(probe) if gpu.memory_mib >= INTEGRATED_MIB]
    notes = ("rocm-smi did not answer in time.",) if answer and answer.code is None else ()
    return GpuReport(tuple(gpus), driver if gpus else None, None, notes)


def amd_gpu(card: dict[str, str]) -> Gpu:
    """Parse one entry of `rocm-smi --json`; the keys' capitals differ between releases."""
    values = {key.lower(): str(value) for key, value in card.items()}
    name = values.get("card series", "")
    if not name or name == "N/A":
        name = values.get("card model", "AMD GPU")
    target = re.match(r"gfx\w+", values.get("gfx version", ""))
    return Gpu("amd", name, int(values.get("vram total memory (b)", "0")) >> 20, target[0] if target else None)


def sysfs_amd_gpus(probe: SystemProbe) -> list[Gpu]:
    """Return AMD GPUs from the kernel's display tree, for machines with the driver but without `rocm-smi`."""
    gpus = []
    for path in probe.glob("/sys/class/drm/card[0-9]*/device/mem_info_vram_total"):
        folder = path.rsplit("/", 1)[0]
        size = (probe.read(path) or "").strip()
        if (probe.read(f"{folder}/vendor") or "").strip() == "0x1002" and size.isdigit():
            name = (probe.read(f"{folder}/product_name") or "").strip() or "AMD GPU"
            gpus.append(Gpu("amd", name, int(size) >> 20))
    return gpus


def detect_apple(probe: SystemProbe, ram_mib: int) -> GpuReport:
    """Return the GPU of an Apple chip; it shares the RAM, of which macOS lets it use about two thirds."""
    if probe.system != "Darwin" or probe.arch != "arm64":
        return GpuReport()
    model = sysctl(probe, "machdep.cpu.brand_string") or "Apple silicon"
    return GpuReport((Gpu("apple", model, ram_mib * 2 // 3),))

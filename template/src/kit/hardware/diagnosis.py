"""Recommend settings for this machine's hardware, and show what `scripts/doctor.py` diagnosed."""

import re
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from src.kit.hardware.environment import MODULES, Check, cuda_build, release
from src.kit.hardware.hardware import Gpu, Hardware, detect

# Drivers report less memory than a card was sold with: error correction and firmware take up to 7.1 % (Tesla P4, 8 GB:
# 7611 MiB; RTX 4060, 8 GB: 8188), so 92.5 % of 8 GiB counts as 8 GB. No card reports more, so everything sold as 16 GB
# (T4: 15360 MiB, RTX 4080: 16376) stays at or below 16 GiB, and the next size up (20 GB: 19968) is above it.
EIGHT_GB_MIB = 7578
SIXTEEN_GB_MIB = 16384
MARKS = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "bold red")}


@dataclass(frozen=True)
class Recommendation:
    """`name` is the config key to override, or "requirements" or "dataset_tier", which aren't config keys."""

    name: str
    value: str | int
    reason: str


def recommend(hardware: Hardware, cuda: str | None = None) -> list[Recommendation]:
    """Return five recommendations in a fixed order, each with its reason.

    Args:
        cuda: the CUDA version that `requirements-gpu.txt` installs; None if unknown.
    """
    return [
        Recommendation("requirements", *requirements(hardware, cuda)),
        Recommendation("dataset_tier", *dataset_tier(hardware)),
        Recommendation("data.batch_size", *batch_size(hardware)),
        Recommendation("data.num_workers", *num_workers(hardware)),
        Recommendation("trainer.precision", *precision(hardware)),
    ]


def requirements(hardware: Hardware, cuda: str | None) -> tuple[str, str]:
    """Choose the requirements file; CUDA builds run on drivers of the same major version or a later one."""
    vendors = {gpu.vendor for gpu in hardware.gpus}
    if not vendors:
        return "requirements-cpu.txt", "no usable GPU"
    if "apple" in vendors:
        return "requirements-cpu.txt", "its macOS builds include the Metal backend"
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
    return "requirements-gpu.txt", f"driver {hardware.driver} supports CUDA {highest or '(version unknown)'}"


def dataset_tier(hardware: Hardware) -> tuple[str, str]:
    """Return the tier and the reason: "debug", "production-conservative" (8 to 16 GB, inclusive), "production-full"."""
    memory = hardware.smallest_gpu_mib
    if not hardware.gpus:
        return "debug", "training runs on the CPU"
    subject = "the GPU has" if len(hardware.gpus) == 1 else f"the smallest of {len(hardware.gpus)} GPUs has"
    if not memory:
        return "debug", "the GPU doesn't report its memory"
    if memory < EIGHT_GB_MIB:
        return "debug", f"{subject} {gib(memory)}, less than 8 GB"
    if memory <= SIXTEEN_GB_MIB:
        return "production-conservative", f"{subject} {gib(memory)}, between 8 and 16 GB"
    return "production-full", f"{subject} {gib(memory)}, more than 16 GB"


def batch_size(hardware: Hardware) -> tuple[int, str]:
    """Return the samples per step and device: a start that fits ResNet-50 at 224 x 224 in fp32, with room to spare."""
    memory = hardware.smallest_gpu_mib
    if not hardware.gpus:
        if 0 < hardware.ram_mib < 4096:
            return 16, f"{gib(hardware.ram_mib)} of RAM"
        return 32, "a CPU gains nothing from larger batches"
    for limit, size in ((EIGHT_GB_MIB, 32), (SIXTEEN_GB_MIB + 1, 64), (40000, 128)):
        if memory < limit:
            return size, f"fits a ResNet-50 at 224 x 224 into {gib(memory)} on each GPU"
    return 256, f"{gib(memory)} on each GPU would hold more, but larger batches need another learning rate"


def num_workers(hardware: Hardware) -> tuple[int, str]:
    """Return the threads that decode images, per training process."""
    gpus = max(1, len(hardware.gpus))
    available = plural(hardware.cores, "core")
    if not hardware.gpus:
        return max(1, min(4, hardware.cores // 2)), f"half of {available}: training needs the others"
    reason = f"{available} for {plural(gpus, 'GPU')}; more than 8 each seldom help"
    return max(1, min(8, hardware.cores // gpus)), reason


def precision(hardware: Hardware) -> tuple[str, str]:
    """Choose bf16 if every GPU computes in it, else fp16 if it is fast, else fp32."""
    if not hardware.gpus:
        return "32-true", "mixed precision is for GPUs"
    weakest = min((best_precision(gpu) for gpu in hardware.gpus), key=("fp32", "fp16", "bf16").index)
    names = ", ".join(sorted({f"{gpu.model} ({gpu.compute_capability or 'unknown'})" for gpu in hardware.gpus}))
    if weakest == "bf16":
        return "bf16-mixed", f"computes in bf16, which needs no loss scaling: {names}"
    if weakest == "fp16":
        return "16-mixed", f"fast in fp16 but has no bf16: {names}"
    return "32-true", f"no fast half precision: {names}"


def auto_precision(framework: str, accelerator: str) -> str:
    """What `trainer.precision=auto` stands for here: "bf16-mixed" if training runs on GPUs that do bf16, or "32-true".

    Not fp16, whose loss scaling skips steps, nor in Paddle, where bf16 has been run on no GPU yet: who wants them has
    to say so.
    """
    if framework == "paddle" or accelerator not in ("auto", "gpu") or not cuda_build(MODULES[framework]):
        return "32-true"
    best, _ = precision(detect())
    return best if best == "bf16-mixed" else "32-true"


def best_precision(gpu: Gpu) -> str:
    """Return "bf16", "fp16" or "fp32": tensor cores do fp16 since Volta (7.0) and bf16 since Ampere (8.0)."""
    capability = gpu.compute_capability or ""
    if gpu.vendor == "nvidia" and capability:
        return "bf16" if release(capability) >= (8,) else "fp16" if release(capability) >= (7,) else "fp32"
    if gpu.vendor == "amd" and capability:
        # Matrix units since Instinct MI100 (gfx908) and Radeon RX 7000 (gfx11).
        return "bf16" if re.match(r"gfx(908|90a|9[45]|1[12])", capability) else "fp16"
    return "fp32"


@dataclass(frozen=True)
class Diagnosis:
    """Everything that the doctor found."""

    hardware: Hardware
    recommendations: list[Recommendation]
    checks: list[Check]

    @property
    def can_train(self) -> bool:
        """Whether no check failed."""
        return all(check.status != "fail" for check in self.checks)

    @property
    def verdict(self) -> str:
        """The last line: what to do next."""
        problems = sum(check.status == "fail" for check in self.checks)
        warnings = sum(check.status == "warn" for check in self.checks)
        if problems:
            return f"Training cannot start: fix the {'problem' if problems == 1 else f'{problems} problems'} above."
        return "Ready to train" + (f", with {plural(warnings, 'warning')}." if warnings else ".")

    @property
    def command(self) -> str:
        """The training command, with the recommended overrides unless something keeps it from using the GPU."""
        if any(check.status == "warn" and check.name in ("GPU", "Lightning", "Paddle") for check in self.checks):
            return "python scripts/train.py"
        overrides = (f"{item.name}={item.value}" for item in self.recommendations if "." in item.name)
        return " ".join(["python scripts/train.py", *overrides])

    def to_dict(self) -> dict[str, Any]:
        """Return the keys hardware, recommendations, checks, can_train, command."""
        return {**asdict(self), "can_train": self.can_train, "command": self.command}


def facts(hardware: Hardware) -> list[tuple[str, str]]:
    """Return rows of a name and a value; equal GPUs share a row."""
    rows = []
    for gpu, count in Counter(hardware.gpus).items():
        label = "compute capability " if gpu.vendor == "nvidia" else ""
        capability = f", {label}{gpu.compute_capability}" if gpu.compute_capability else ""
        memory = gib(gpu.memory_mib) if gpu.memory_mib else "memory unknown"
        rows.append(("GPU", f"{f'{count} x ' if count > 1 else ''}{gpu.model}, {memory}{capability}"))
    if not rows:
        rows.append(("GPU", "none"))
    if hardware.driver:
        cuda = f", supports CUDA up to {hardware.cuda}" if hardware.cuda else ""
        rows.append(("Driver", hardware.driver + cuda))
    extensions = f" ({', '.join(hardware.instructions)})" if hardware.instructions else ""
    rows.append(("CPU", f"{hardware.cpu}, {plural(hardware.cores, 'core')} usable{extensions}"))
    rows.append(("RAM", gib(hardware.ram_mib) if hardware.ram_mib else "unknown"))
    rows.append(("Disk", f"{gib(hardware.disk_free_mib)} free"))
    rows.append(("System", hardware.system))
    return rows


def show_plain(diagnosis: Diagnosis) -> None:
    """Print plain lines, for pipes, log files, and environments without rich."""
    print("Hardware")
    for name, value in facts(diagnosis.hardware):
        print(f"  {name:<8}{value}")
    print("\nRecommended")
    for item in diagnosis.recommendations:
        print(f"  {item.name:<19}{item.value!s:<25}{item.reason}")
    print("\nEnvironment")
    for check in diagnosis.checks:
        print(f"  {check.status.upper() if check.status == 'fail' else check.status:<6}{check.name:<14}{check.detail}")
        if check.fix:
            print(f"        {'':<12}-> {check.fix}")
    print(f"\n{diagnosis.verdict}")
    if diagnosis.can_train:
        print(f"  {diagnosis.command}")


def show_rich(diagnosis: Diagnosis) -> None:
    """Print panels on a terminal."""
    from rich.console import Console, RenderableType
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    console = Console(width=min(Console().width, 110))
    unicode = console.encoding.startswith("utf")

    def panel(title: str, rows: list[tuple[RenderableType, ...]]) -> None:
        table = Table.grid(padding=(0, 2))
        for row in rows:
            table.add_row(*row)
        console.print(
            Panel(table, title=Text(title, "bold cyan"), title_align="left", border_style="cyan", padding=(0, 1))
        )

    panel("Hardware", [(Text(name, "bold"), Text(value)) for name, value in facts(diagnosis.hardware)])
    advice = diagnosis.recommendations
    panel("Recommended", [(Text(i.name, "bold"), Text(str(i.value), "green"), Text(i.reason, "dim")) for i in advice])
    rows: list[tuple[RenderableType, ...]] = []
    for check in diagnosis.checks:
        mark, style = MARKS[check.status]
        rows.append((Text(mark if unicode else check.status, style), Text(check.name, "bold"), Text(check.detail)))
        if check.fix:
            rows.append(("", "", Text(f"{'→' if unicode else '->'} {check.fix}", "yellow")))
    panel("Environment", rows)
    console.print(Text(diagnosis.verdict, "bold green" if diagnosis.can_train else "bold red"))
    if diagnosis.can_train:
        console.print(Text(f"  {diagnosis.command}"), soft_wrap=True)


def gib(mib: int) -> str:
    """12288 -> "12.0 GiB"."""
    return f"{mib / 1024:.1f} GiB"


def plural(count: int, noun: str) -> str:
    """1 -> "1 core", 2 -> "2 cores"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"

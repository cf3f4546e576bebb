"""Whether the project's frameworks are installed, and in a build that fits the driver and the GPUs."""

import re
from dataclasses import dataclass
from pathlib import Path

from src.utils.hardware import Hardware
from src.utils.hardware.packages import cuda_build, installed, release

# What each trainer in src/trainers imports: the module that carries the build, and the distributions.
FRAMEWORKS = {"lightning": ("torch", "pytorch-lightning"), "paddle": ("paddlepaddle",)}
MODULES = {"lightning": "torch", "paddle": "paddle"}


@dataclass(frozen=True)
class Check:
    """`status` is "ok", "warn", or "fail" where training could not start; `mend` is empty where nothing is amiss."""

    name: str
    status: str
    detail: str
    mend: str = ""


def check_frameworks(hardware: Hardware, root: Path) -> list[Check]:
    """Whether what the project's trainers import is installed; with two frameworks, one is enough to train."""
    frameworks = [name for name in FRAMEWORKS if (root / "src" / "trainers" / f"{name}.py").is_file()]
    missing = {name: [package for package in FRAMEWORKS[name] if not version_of(package)] for name in frameworks}
    none_works = all(missing.values())
    checks = []
    for name, packages in missing.items():
        if packages:
            mend = pip(f"install -r {requirements_file(hardware, root).name}")
            detail = f"{' and '.join(packages)} not installed"
            checks.append(Check(name.capitalize(), "fail" if none_works else "warn", detail, mend))
        else:
            checks.append(check_build(name, hardware, root))
    return checks or [Check("Framework", "fail", "src/trainers holds no trainer", "Restore it with `copier recopy`.")]


def check_build(name: str, hardware: Hardware, root: Path) -> Check:
    """The framework's CUDA build against the driver and the GPUs."""
    build = cuda_build(MODULES[name]) or ""
    packages = ", ".join(f"{package} {version_of(package)}" for package in FRAMEWORKS[name])
    kind = f"CUDA {build}" if build else "CPU"
    detail = f"{packages} ({kind} build)"
    nvidia = [gpu for gpu in hardware.gpus if gpu.vendor == "nvidia"]
    if nvidia and not build:
        mend = reinstall(name, root)
        return Check(name.capitalize(), "warn", f"{detail} cannot use the GPU", mend)
    if nvidia and hardware.cuda and release(build)[:1] > release(hardware.cuda)[:1]:
        mend = "Update the NVIDIA driver, or run `copier update` and choose a CUDA version that the driver supports."
        return Check(
            name.capitalize(), "fail", f"{detail} needs a newer driver: this one ends at {hardware.cuda}", mend
        )
    if release(build) >= (13,) and any(release(gpu.compute_capability or "9") < (7, 5) for gpu in nvidia):
        mend = "Run `copier update` and choose CUDA 12.6, the last one whose builds run on GPUs before Turing."
        return Check(name.capitalize(), "fail", f"{detail} does not run on GPUs below compute capability 7.5", mend)
    return Check(name.capitalize(), "ok", detail)


def requirements_file(hardware: Hardware, root: Path) -> Path:
    """The file that the installed frameworks came from, else the one for this machine."""
    builds = [build for module in MODULES.values() if (build := cuda_build(module)) is not None]
    gpu = any(builds) if builds else any(gpu.vendor == "nvidia" for gpu in hardware.gpus)
    file = root / ("requirements-gpu.txt" if gpu else "requirements-cpu.txt")
    return file if file.is_file() else root / "requirements-cpu.txt"


def required_cuda(root: Path) -> str | None:
    """The CUDA version of `requirements-gpu.txt`, by its index or its pins: `.../whl/cu126` or `+cu126` -> "12.6"."""
    file = root / "requirements-gpu.txt"
    found = re.search(r"\bcu(\d+)(\d)\b", file.read_text(encoding="utf-8")) if file.is_file() else None
    return f"{found[1]}.{found[2]}" if found else None


def version_of(package: str) -> str | None:
    """The installed version; Paddle's CUDA build is a distribution of another name."""
    return installed(package) or (installed(f"{package}-gpu") if package == "paddlepaddle" else None)


def reinstall(name: str, root: Path) -> str:
    """Change a CPU build for a CUDA build; pip takes `2.13.0+cpu` for `2.13.0`, so the old one has to go first."""
    if required_cuda(root) is None:
        return "Run `copier update` and choose a CUDA version, then run this script again."
    builds = {"lightning": ("torch", "torchvision"), "paddle": ("paddlepaddle",)}[name]
    old = " ".join(package for package in builds if installed(package))
    return f"{pip(f'uninstall {old}')}, then {pip('install -r requirements-gpu.txt')}"


def pip(arguments: str) -> str:
    """The command, for uv's environments too, which hold no pip."""
    return f"`{'python -m pip' if installed('pip') else 'uv pip'} {arguments}`"

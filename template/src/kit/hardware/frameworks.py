"""Whether the project's frameworks are installed, and in a build that fits the driver and the GPUs."""

import re
from dataclasses import dataclass
from pathlib import Path

from src.kit.hardware.hardware import Hardware
from src.kit.hardware.packages import cuda_build, installed, release

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
    """Whether what the project's trainers import is installed; with two frameworks, one is enough to train.

    Their GPU builds need an environment each, so there the other one is not missed.
    """
    missing = {name: [package for package in FRAMEWORKS[name] if not version_of(package)] for name in trained(root)}
    none_works = all(missing.values())
    file = requirements_file(hardware, root)
    checks = []
    for name, packages in missing.items():
        own = gpu_file(name, root) if file.name.startswith("requirements-gpu") else file
        detail = f"{' and '.join(packages)} not installed"
        if not packages:
            checks.append(check_build(name, hardware, root))
        elif own == file or none_works:
            checks.append(Check(name.capitalize(), "fail" if none_works else "warn", detail, install(own)))
        else:
            detail += f": its GPU build gets an environment of its own, from {own.name}"
            checks.append(Check(name.capitalize(), "ok", detail))
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


def trained(root: Path) -> list[str]:
    """The frameworks that the project has a trainer for."""
    return [name for name in FRAMEWORKS if (root / "src" / "trainers" / f"{name}.py").is_file()]


def requirements_file(hardware: Hardware, root: Path) -> Path:
    """The file that the installed frameworks came from, else the one for this machine."""
    found = {name: build for name in trained(root) if (build := cuda_build(MODULES[name])) is not None}
    on_gpu = [name for name, build in found.items() if build]
    if on_gpu:
        file = gpu_file(on_gpu[0], root)
    elif found or not any(gpu.vendor == "nvidia" for gpu in hardware.gpus):
        file = root / "requirements-cpu.txt"
    else:
        file = root / "requirements-gpu.txt"
    return file if file.is_file() else root / "requirements-cpu.txt"


def gpu_file(name: str, root: Path) -> Path:
    """Where a framework's GPU build stands: with both frameworks, Paddle's has a file of its own."""
    own = root / f"requirements-gpu-{name}.txt"
    return own if own.is_file() else root / "requirements-gpu.txt"


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
    again = f"{pip(f'uninstall {old}')}, then {install(gpu_file(name, root))}"
    if any(version_of(package) for other in trained(root) if other != name for package in FRAMEWORKS[other]):
        again += f", in an environment of its own where {name.capitalize()} shall use the GPU"
    return again


def install(file: Path) -> str:
    """The command that installs a requirements file."""
    return pip(f"install -r {file.name}")


def pip(arguments: str) -> str:
    """The command, for uv's environments too, which hold no pip."""
    return f"`{'python -m pip' if installed('pip') else 'uv pip'} {arguments}`"

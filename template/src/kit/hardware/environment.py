"""Check whether this environment can train: Python, framework builds against the driver, packages, disk.

Each check that isn't "ok" says how to fix it. Frameworks aren't imported, which takes seconds and fails with a broken
driver; and the doctor must run where nothing is installed, so versions are compared here and not by `packaging`.
"""

import importlib.metadata
import importlib.util
import os
import platform
import re
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path

from src.kit.hardware.hardware import Hardware

OLDEST_PYTHON = (3, 10)  # that the frameworks' current releases support
TOOLS = {"pytest", "ruff", "mypy", "nox", "pre-commit", "hypothesis"}  # not needed for training
DISK_NEEDED_MIB, DISK_WANTED_MIB = 500, 5000
# What each trainer in src/trainers needs: the distributions, the first of which carries the build; and its module.
FRAMEWORKS = {"lightning": ("torch", "pytorch-lightning"), "paddle": ("paddlepaddle",)}
MODULES = {"lightning": "torch", "paddle": "paddle"}
REQUIREMENT = re.compile(r"^(?P<name>[A-Za-z0-9][\w.-]*)\s*(?:\[[^\]]*\])?\s*(?P<wanted>[^;#]*)(?:;(?P<marker>[^#]*))?")
CLAUSE = re.compile(r"\s*(===|==|!=|~=|<=|>=|<|>)\s*([\w.*+!-]+)\s*$")
PYTHON = ".".join(map(str, sys.version_info[:3]))
MARKERS = {
    "python_version": PYTHON.rpartition(".")[0],
    "python_full_version": PYTHON,
    "sys_platform": sys.platform,
    "platform_system": platform.system(),
    "platform_machine": platform.machine(),
}


@dataclass(frozen=True)
class Check:
    """One check's result.

    Attributes:
        status: "ok", "warn", or "fail" if training can't start.
        fix: what to do about it; empty if the check is ok.
    """

    name: str
    status: str
    detail: str
    fix: str = ""


def check_environment(hardware: Hardware, root: Path) -> list[Check]:
    """Run all checks on the project in `root`, in the order in which to fix problems."""
    return [
        check_python(),
        *check_gpu(hardware),
        *check_frameworks(hardware, root),
        check_packages(requirements_file(hardware, root)),
        check_disk(hardware),
        check_writable(output_folders(root)),
    ]


def check_python() -> Check:
    """Check the interpreter's version, and whether `pip install` may change it."""
    if sys.version_info < OLDEST_PYTHON:
        return Check(
            "Python", "fail", f"{PYTHON} is older than 3.10", "Create an environment with Python 3.10 or newer."
        )
    if sys.prefix != sys.base_prefix or Path(sys.prefix, "conda-meta").is_dir():
        return Check("Python", "ok", f"{PYTHON}, in a virtual environment")
    if Path(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED").is_file():
        fix = "Run `python3 -m venv .venv`, activate it, and install the requirements there."
        return Check("Python", "warn", f"{PYTHON} belongs to the operating system, where pip may not install", fix)
    return Check("Python", "ok", PYTHON)


def check_gpu(hardware: Hardware) -> list[Check]:
    """Return a warning for everything that keeps this process from using a GPU."""
    refresh = "Fix the driver, then run `python scripts/doctor.py --refresh`."
    checks = [Check("GPU", "warn", note, refresh) for note in hardware.notes]
    if hardware.gpus and os.environ.get("CUDA_VISIBLE_DEVICES", "all") in ("", "-1"):
        fix = "Unset CUDA_VISIBLE_DEVICES, unless you want to train on the CPU."
        checks.append(Check("GPU", "warn", "CUDA_VISIBLE_DEVICES hides every GPU", fix))
    if checks:
        return checks
    if not hardware.gpus:
        return [Check("GPU", "ok", "none: training runs on the CPU")]
    mig = "; a process can use only one MIG instance" if any(gpu.mig for gpu in hardware.gpus) else ""
    return [Check("GPU", "ok", f"{len(hardware.gpus)} usable{mig}")]


def check_frameworks(hardware: Hardware, root: Path) -> list[Check]:
    """Check what the project's trainers import; in a project with two frameworks, one is enough to train.

    Their GPU builds need separate environments, so in one of them the other framework isn't missed.
    """
    missing = {
        name: [package for package in FRAMEWORKS[name] if not version_of(package)] for name in project_frameworks(root)
    }
    none_works = all(missing.values())
    file = requirements_file(hardware, root)
    checks = []
    for name, packages in missing.items():
        own = gpu_file(name, root) if file.name.startswith("requirements-gpu") else file
        detail = f"{' and '.join(packages)} not installed"
        if not packages:
            checks.append(check_build(name, hardware, root))
        elif own == file or none_works:
            checks.append(Check(name.capitalize(), "fail" if none_works else "warn", detail, install_command(own)))
        else:
            detail += f": its GPU build gets an environment of its own, from {own.name}"
            checks.append(Check(name.capitalize(), "ok", detail))
    return checks or [Check("Framework", "fail", "src/trainers holds no trainer", "Restore it with `copier recopy`.")]


def check_build(name: str, hardware: Hardware, root: Path) -> Check:
    """Check the framework's CUDA build against the driver and the GPUs."""
    build = cuda_build(MODULES[name]) or ""
    packages = ", ".join(f"{package} {version_of(package)}" for package in FRAMEWORKS[name])
    detail = f"{packages} ({f'CUDA {build}' if build else 'CPU'} build)"
    status, fix = "ok", ""
    nvidia = [gpu for gpu in hardware.gpus if gpu.vendor == "nvidia"]
    if nvidia and not build:
        status, fix = "warn", reinstall_command(name, root)
        detail += " cannot use the GPU"
    elif nvidia and hardware.cuda and release(build)[:1] > release(hardware.cuda)[:1]:
        status = "fail"
        detail += f" needs a newer driver: this one supports CUDA up to {hardware.cuda}"
        fix = "Update the NVIDIA driver, or run `copier update` and choose a CUDA version that the driver supports."
    elif release(build) >= (13,) and any(release(gpu.compute_capability or "9") < (7, 5) for gpu in nvidia):
        status = "fail"
        detail += " does not run on GPUs below compute capability 7.5"
        fix = "Run `copier update` and choose CUDA 12.6, the last one whose builds run on GPUs before Turing."
    elif name == "lightning" and (other := other_torchvision()):
        status = "warn"
        detail += f", but {other}: networks such as resnet18 will not start"
        install = install_command(requirements_file(hardware, root))
        fix = f"{pip('uninstall torchvision')}, then {install} from the index or folder that torch came from."
    return Check(name.capitalize(), status, detail, fix)


def check_packages(requirements: Path) -> Check:
    """Check installed versions against the requirements file."""
    if not requirements.is_file():
        return Check("Packages", "warn", f"{requirements.name} is missing", "Restore it with `copier recopy`.")
    wanted = read_requirements(requirements)
    versions = {name: version_of(name) for name in wanted}
    missing = [f"{name}{wanted[name]}" for name, version in versions.items() if version is None]
    others = [
        f"{name} {version} (required: {wanted[name]})"
        for name, version in versions.items()
        if version is not None and not satisfies(version, wanted[name])
    ]
    problems = [f"not installed: {', '.join(missing)}"] if missing else []
    if others:
        problems.append(f"other version: {', '.join(others)}")
    if not problems:
        return Check("Packages", "ok", f"all {len(wanted)} of {requirements.name}")
    needed = {name for name, version in versions.items() if version is None} - TOOLS
    status = "fail" if needed else "warn"
    return Check("Packages", status, "; ".join(problems), pip(f"install -r {requirements.name}"))


def check_disk(hardware: Hardware) -> Check:
    """Check the free space for data, checkpoints and reports."""
    free = hardware.disk_free_mib
    status = "fail" if free < DISK_NEEDED_MIB else "warn" if free < DISK_WANTED_MIB else "ok"
    fix = "Free some space, or set output_dir and data.root to another disk." if status != "ok" else ""
    return Check("Disk", status, f"{free / 1024:.1f} GiB free", fix)


def check_writable(folders: list[Path]) -> Check:
    """Write a real file: permission bits tell little about network drives, containers and Windows."""
    for folder in folders:
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        try:
            with tempfile.TemporaryFile(dir=existing):
                continue
        except OSError as error:
            fix = f"Make {existing} a folder that you may write to, or set another output_dir or data.root."
            return Check("Write access", "fail", f"cannot write to {folder}: {error.strerror}", fix)
    return Check("Write access", "ok", ", ".join(f"{folder.name}/" for folder in folders))


def output_folders(root: Path) -> list[Path]:
    """Return the folders of runs and downloads: `output_dir` of the main config, and `data`."""
    config = root / "src" / "configs" / "config.yaml"
    text = config.read_text(encoding="utf-8") if config.is_file() else ""
    match = re.search(r"^output_dir:\s*([\w./~-]+)\s*(?:#.*)?$", text, re.MULTILINE)
    return [root / Path(match[1] if match else "outputs").expanduser(), root / "data"]


def project_frameworks(root: Path) -> list[str]:
    """Return the frameworks that the project has a trainer for."""
    return [name for name in FRAMEWORKS if (root / "src" / "trainers" / f"{name}.py").is_file()]


def requirements_file(hardware: Hardware, root: Path) -> Path:
    """Return the file that the installed frameworks came from, or else the one for this machine."""
    builds = {name: build for name in project_frameworks(root) if (build := cuda_build(MODULES[name])) is not None}
    on_gpu = [name for name, build in builds.items() if build]
    if on_gpu:
        file = gpu_file(on_gpu[0], root)
    elif builds or not any(gpu.vendor == "nvidia" for gpu in hardware.gpus):
        file = root / "requirements-cpu.txt"
    else:
        file = root / "requirements-gpu.txt"
    return file if file.is_file() else root / "requirements-cpu.txt"


def gpu_file(name: str, root: Path) -> Path:
    """Return the requirements file of a framework's GPU build; in a project with both, Paddle has its own."""
    own = root / f"requirements-gpu-{name}.txt"
    return own if own.is_file() else root / "requirements-gpu.txt"


def required_cuda(root: Path) -> str | None:
    """Return the CUDA version of `requirements-gpu.txt` by its index or pins: `.../whl/cu126` or `+cu126` -> "12.6"."""
    file = root / "requirements-gpu.txt"
    match = re.search(r"\bcu(\d+)(\d)\b", file.read_text(encoding="utf-8")) if file.is_file() else None
    return f"{match[1]}.{match[2]}" if match else None


def version_of(package: str) -> str | None:
    """Return the installed version; Paddle's CUDA build is a distribution of another name."""
    return installed(package) or (installed(f"{package}-gpu") if package == "paddlepaddle" else None)


def reinstall_command(name: str, root: Path) -> str:
    """Say how to replace a CPU build by a CUDA build.

    To pip, an installed `2.13.0+cpu` satisfies `2.13.0`, so the old one has to go first.
    """
    if required_cuda(root) is None:
        return "Run `copier update` and choose a CUDA version, then run this script again."
    builds = {"lightning": ("torch", "torchvision"), "paddle": ("paddlepaddle",)}[name]
    old = " ".join(package for package in builds if installed(package))
    commands = f"{pip(f'uninstall {old}')}, then {install_command(gpu_file(name, root))}"
    others = [other for other in project_frameworks(root) if other != name]
    if any(version_of(package) for other in others for package in FRAMEWORKS[other]):
        commands += f", in an environment of its own if {name.capitalize()} should use the GPU"
    return commands


def install_command(file: Path) -> str:
    """Return the command that installs a requirements file."""
    return pip(f"install -r {file.name}")


def pip(arguments: str) -> str:
    """Return the pip command; uv's environments have no pip."""
    return f"`{'python -m pip' if installed('pip') else 'uv pip'} {arguments}`"


def installed(name: str) -> str | None:
    """Return the installed version of a distribution, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def cuda_build(package: str) -> str | None:
    """Return the CUDA version that torch or paddle was built for: "" for a CPU build, None if it isn't installed."""
    text = version_file(package)
    match = re.search(r"^cuda\w*\s*(?::[^=\n]*)?=\s*'([\d.]+)'", text or "", re.MULTILINE)
    return None if text is None else match[1] if match else ""


def other_torchvision() -> str:
    """Return what torchvision is built for, if it can't be imported with this torch; otherwise ""."""
    torch, torchvision = build_label("torch"), build_label("torchvision")
    return f"torchvision's {torchvision} build" if torch and torchvision and torch != torchvision else ""


def build_label(package: str) -> str:
    """Return the label of a build, such as "cpu" or "cu130"; "" if there is none. PyPI's names leave it out."""
    match = re.search(r"^__version__\s*=\s*'[^'+]*\+(\w+)", version_file(package) or "", re.MULTILINE)
    return match[1] if match else ""


def version_file(package: str) -> str | None:
    """Return the text of a package's version file, without importing the package; None if it isn't installed."""
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for file in (Path(folder, "version.py"), Path(folder, "version", "__init__.py")):
            if file.is_file():
                return file.read_text(encoding="utf-8")
    return None


def read_requirements(path: Path) -> dict[str, str]:
    """Return package -> specifier of each line that applies here; follow `-r`, skip options such as `--index-url`."""
    wanted: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        include = re.match(r"\s*(?:-r|--requirement)[ =]\s*(\S+)", line)
        match = REQUIREMENT.match(line.strip())
        if include:
            wanted |= read_requirements(path.parent / include[1])
        elif match and marker_applies(match["marker"] or ""):
            wanted[match["name"].lower()] = match["wanted"].strip()
    return wanted


def marker_applies(marker: str) -> bool:
    """Evaluate an environment marker such as `python_version < "3.12"`; unknown variables count as true."""
    return any(all(map(clause_applies, part.split(" and "))) for part in marker.split(" or "))


def clause_applies(clause: str) -> bool:
    """Evaluate one comparison of a marker."""
    match = re.match(r"""[\s(]*(\w+)\s*([!=<>~]+)\s*["']([^"']*)["']""", clause)
    if not match or match[1] not in MARKERS:
        return True
    if match[1].startswith("python"):
        return satisfies_clause(MARKERS[match[1]], match[2], match[3])
    return (MARKERS[match[1]] == match[3]) == (match[2] == "==")


def satisfies(version: str, wanted: str) -> bool:
    """Match a version against a PEP 440 specifier: `>=2.0,<2.4`, `~=1.9.0`, `==2.13.*`, `==2.13.0+cu126`."""
    return all(satisfies_clause(version, *clause.groups()) for clause in map(CLAUSE.match, wanted.split(",")) if clause)


def satisfies_clause(version: str, operator: str, target: str) -> bool:
    """Match one clause; a local label counts only if the clause has one, and a pre-release precedes its release."""
    if target.endswith(".*"):
        prefix = [int(part) for part in target[:-2].split(".")]
        same = ([*release(version), *[0] * len(prefix)])[: len(prefix)] == prefix
        return same if operator == "==" else not same
    public, _, local = version.partition("+")
    if operator in ("==", "===", "!="):
        wanted, _, label = target.partition("+")
        same = sort_key(public) == sort_key(wanted) and label in ("", local)
        return same if operator != "!=" else not same
    have, want = sort_key(public), sort_key(target)
    if operator == "~=":
        return have >= want and satisfies_clause(public, "==", target.rpartition(".")[0] + ".*")
    return {"<": have < want, "<=": have <= want, ">": have > want, ">=": have >= want}[operator]


def sort_key(version: str) -> tuple[tuple[int, ...], int]:
    """Return a key that sorts versions, close enough for requirements."""
    return release(version), 0 if re.search(r"\d(a|b|rc|\.dev)\d", version) else 1


def release(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, without trailing zeros: "12.6" -> (12, 6), "2.0.0+cpu" -> (2,)."""
    numbers = [int(part) for part in re.findall(r"\d+", re.split(r"[^\d.]", version, maxsplit=1)[0])]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)

"""Checks whether this environment can train, and says for each fault how to mend it; imports no framework."""

import os
import re
import sys
import sysconfig
import tempfile
from pathlib import Path

from src.kit.hardware.frameworks import Check, check_frameworks, pip, requirements_file, version_of
from src.kit.hardware.hardware import Hardware
from src.kit.hardware.packages import read_requirements, satisfies

PYTHON = (3, 10)  # the oldest that the frameworks' current releases support
TOOLS = {"pytest", "ruff", "mypy", "nox", "pre-commit", "hypothesis"}  # training starts without them
DISK_NEEDED_MIB, DISK_WANTED_MIB = 500, 5000


def check_environment(hardware: Hardware, root: Path) -> list[Check]:
    """All checks, in the order in which faults should be mended."""
    return [
        check_python(),
        *check_gpu(hardware),
        *check_frameworks(hardware, root),
        check_packages(requirements_file(hardware, root)),
        check_disk(hardware),
        check_writable(written_folders(root)),
    ]


def check_python() -> Check:
    """The interpreter's version, and whether it is one that `pip install` may change."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < PYTHON:
        return Check(
            "Python", "fail", f"{version} is older than 3.10", "Make an environment with Python 3.10 or newer."
        )
    if sys.prefix != sys.base_prefix or Path(sys.prefix, "conda-meta").is_dir():
        return Check("Python", "ok", f"{version}, in an environment of its own")
    if Path(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED").is_file():
        mend = "`python3 -m venv .venv`, activate it, and install the requirements there."
        return Check("Python", "warn", f"{version} belongs to the operating system, where pip may not install", mend)
    return Check("Python", "ok", version)


def check_gpu(hardware: Hardware) -> list[Check]:
    """One warning for each thing that stands between this process and a GPU."""
    again = "Mend the driver, then run `python scripts/doctor.py --refresh`."
    checks = [Check("GPU", "warn", note, again) for note in hardware.notes]
    if hardware.gpus and os.environ.get("CUDA_VISIBLE_DEVICES", "all") in ("", "-1"):
        mend = "Unset CUDA_VISIBLE_DEVICES, unless training on the processor is what you want."
        checks.append(Check("GPU", "warn", "CUDA_VISIBLE_DEVICES hides every GPU", mend))
    if checks:
        return checks
    if not hardware.gpus:
        return [Check("GPU", "ok", "none: training runs on the processor")]
    mig = "; a process can use only one MIG instance" if any(gpu.mig for gpu in hardware.gpus) else ""
    return [Check("GPU", "ok", f"{len(hardware.gpus)} usable{mig}")]


def check_packages(requirements: Path) -> Check:
    """Installed versions against the requirements file."""
    if not requirements.is_file():
        return Check("Packages", "warn", f"there is no {requirements.name}", "Restore it with `copier recopy`.")
    wanted = read_requirements(requirements)
    versions = {name: version_of(name) for name in wanted}
    missing = [f"{name}{wanted[name]}" for name, version in versions.items() if version is None]
    others = [f"{name} {have} (asked for: {wanted[name]})" for name, have in versions.items()
              if have is not None and not satisfies(have, wanted[name])]  # fmt: skip
    said = ["not installed: " + ", ".join(missing)] * bool(missing) + ["other version: " + ", ".join(others)] * bool(
        others
    )
    if not said:
        return Check("Packages", "ok", f"all {len(wanted)} of {requirements.name}")
    needed = {name for name, version in versions.items() if version is None} - TOOLS
    return Check("Packages", "fail" if needed else "warn", "; ".join(said), pip(f"install -r {requirements.name}"))


def check_disk(hardware: Hardware) -> Check:
    """Free space for data, checkpoints and reports."""
    free = hardware.disk_free_mib
    status = "fail" if free < DISK_NEEDED_MIB else "warn" if free < DISK_WANTED_MIB else "ok"
    mend = "Free some space, or set output_dir and data.root to another disk." if status != "ok" else ""
    return Check("Disk", status, f"{free / 1024:.1f} GiB free", mend)


def check_writable(folders: list[Path]) -> Check:
    """Really writes a file: permission bits tell little about network drives, containers and Windows."""
    for folder in folders:
        place = next(path for path in (folder, *folder.parents) if path.exists())
        try:
            with tempfile.TemporaryFile(dir=place):
                continue
        except OSError as error:
            mend = f"Make {place} a folder that you may write to, or set another output_dir or data.root."
            return Check("Write access", "fail", f"cannot write to {folder}: {error.strerror}", mend)
    return Check("Write access", "ok", ", ".join(f"{folder.name}/" for folder in folders))


def written_folders(root: Path) -> list[Path]:
    """Where runs and downloads go: `output_dir` of the main config, and `data`."""
    config = root / "src" / "configs" / "config.yaml"
    text = config.read_text(encoding="utf-8") if config.is_file() else ""
    found = re.search(r"^output_dir:\s*([\w./~-]+)\s*(?:#.*)?$", text, re.MULTILINE)
    return [root / Path(found[1] if found else "outputs").expanduser(), root / "data"]

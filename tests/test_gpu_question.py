"""The GPU question looks at the names of the driver's files: copier.yml's expressions on made-up machines."""

import re
from collections.abc import Sequence
from glob import glob
from pathlib import Path

import pytest
import yaml
from jinja2 import FileSystemLoader
from jinja2.sandbox import SandboxedEnvironment

from tests.cookiecutter_json import ASKED, HELP
from tests.render import ROOT, render

VERSIONS = yaml.safe_load((ROOT / "versions.yml").read_text("utf-8"))
CARD = "proc/driver/nvidia/gpus/0000:01:00.0/information"
LIBRARIES = "usr/lib/x86_64-linux-gnu"


def evaluate(expression: str, root: Path | None, framework: str = "lightning") -> str:
    """Render a text of copier.yml as copier does, with `root` for /; None stands for a copier without `fileglob`."""
    extensions = ["jinja2_ansible_filters.AnsibleCoreFiltersExtension"]
    environment = SandboxedEnvironment(loader=FileSystemLoader(ROOT), extensions=extensions)
    original = environment.filters.pop("fileglob")
    if root:
        environment.filters["fileglob"] = lambda pattern: [
            path.removeprefix(str(root)) for path in original(f"{root}{pattern}")
        ]
    return environment.from_string(expression).render(versions=VERSIONS, framework=framework)


def machine(root: Path, files: Sequence[str]) -> Path:
    for file in files:
        path = root / file.replace(":", "_")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


@pytest.mark.parametrize(
    ("files", "default", "found"),
    [
        ([], "none", "nvidia-smi shows"),
        ([CARD], "none", "nvidia-smi shows"),
        ([f"{LIBRARIES}/libcuda.so.580.65.06"], "none", "nvidia-smi shows"),
        ([CARD, f"{LIBRARIES}/libcuda.so.1"], "none", "nvidia-smi shows"),
        ([CARD, "usr/lib/wsl/lib/libcuda.so.1"], "none", "nvidia-smi shows"),
        (
            [CARD, f"{LIBRARIES}/libcuda.so.1", f"{LIBRARIES}/libcuda.so.580.65.06"],
            "13.0",
            "driver 580.65.06, for 13.0",
        ),
        ([CARD, f"{LIBRARIES}/libcuda.so.580.126.09"], "13.0", "driver 580.126.09, for 13.0"),
        ([CARD, "usr/lib64/libnvidia-ml.so.590.44.01"], "13.0", "driver 590.44.01, for 13.0"),
        ([CARD, "usr/lib/libcuda.so.580.65.05"], "12.6", "driver 580.65.05, for 12.6"),
        ([CARD, "usr/lib/aarch64-linux-gnu/libcuda.so.535.183.01"], "12.6", "driver 535.183.01, for 12.6"),
        ([CARD, f"{LIBRARIES}/libcuda.so.525.60.13"], "12.6", "driver 525.60.13, for 12.6"),
        ([CARD, f"{LIBRARIES}/libcuda.so.525.53"], "none", "driver 525.53 found, too old"),
        ([CARD, f"{LIBRARIES}/libcuda.so.470.256.02"], "none", "driver 470.256.02 found, too old"),
        ([CARD, f"{LIBRARIES}/libcuda.so.590.44.01", f"{LIBRARIES}/libnvidia-ml.so.550.90.07"], "12.6", "550.90.07"),
    ],
)
def test_driver_decides_the_default(files: list[str], default: str, found: str, tmp_path: Path) -> None:
    root = machine(tmp_path, files)
    assert evaluate(ASKED["gpu"]["default"], root) == default
    text = evaluate(ASKED["gpu"]["help"], root)
    assert found in text
    assert len(text) <= 76, "an 80-column terminal cuts the rest off"


def test_without_the_filter_nothing_is_found() -> None:
    assert evaluate(ASKED["gpu"]["default"], None) == "none"
    assert evaluate(ASKED["gpu"]["help"], None) == HELP["gpu"]


def test_real_files_are_looked_at(tmp_path: Path) -> None:
    """copier itself, on this machine: whatever is here, the default is what the expression says."""
    render(tmp_path, {})
    recorded = yaml.safe_load((tmp_path / ".copier-answers.yml").read_text("utf-8"))["gpu"]
    assert recorded == evaluate(ASKED["gpu"]["default"], Path("/"))
    if not glob("/proc/driver/nvidia/gpus/*/information"):
        assert recorded == "none"


def test_answer_alone_decides_what_is_rendered(tmp_path: Path) -> None:
    render(tmp_path, {"gpu": "12.6"})
    assert "whl/cu126" in (tmp_path / "requirements-gpu.txt").read_text("utf-8")


def test_the_project_judges_drivers_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default is what scripts/doctor.py accepts: builds run on every driver of their major version of CUDA."""
    monkeypatch.syspath_prepend(str(ROOT / "template"))
    from src.kit.hardware.hardware import DRIVER_CUDA

    assert list(VERSIONS["drivers"]) == VERSIONS["cuda"]
    macro = "{% from 'questions/gpu.jinja' import newest_cuda %}{{ newest_cuda(versions, framework, '%s') }}"
    for framework, builds in VERSIONS["builds"].items():
        stable = [cuda for cuda in VERSIONS["cuda"] if builds.get(cuda, {}).get("status") == "stable"]
        for branch, highest in DRIVER_CUDA.items():
            runnable = [cuda for cuda in stable if int(cuda.split(".")[0]) <= int(highest.split(".")[0])]
            default = evaluate(macro.replace("%s", f"{branch}.99.99"), None, framework)
            assert default == (runnable or ["none"])[0], branch
    assert all(re.fullmatch(r"\d{3}\.\d{2,3}\.\d{2}", driver) for driver in VERSIONS["drivers"].values())

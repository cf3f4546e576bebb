"""The doctor as users run it, in projects and environments that are sound, or broken in one way each."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from paths import TEMPLATE
from src.kit.hardware.diagnosis import Diagnosis, recommend, show_plain, show_rich
from src.kit.hardware.environment import Check, read_requirements, release, satisfies
from src.kit.hardware.hardware import Gpu, Hardware

needs_posix = pytest.mark.skipif(os.name == "nt", reason="a program on PATH made of a shell script")


@pytest.fixture
def project(tmp_path) -> Path:
    """A project with one trainer and a requirements file, and beside it an environment with torch's CPU build."""
    root = tmp_path / "project"
    files = [TEMPLATE / file for file in ("scripts/doctor.py", "src/__init__.py", "src/kit/errors.py")]
    for file in (*files, *(TEMPLATE / "src/kit/hardware").glob("*.py")):
        target = root / file.relative_to(TEMPLATE)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    (root / "src" / "trainers").mkdir()
    (root / "src" / "trainers" / "lightning.py").touch()
    requirements(root, "cpu", "torch==2.13.0\npytorch-lightning==2.6.6\n")
    install(tmp_path, "torch", "2.13.0+cpu", version_file="cuda: Optional[str] = None\n")
    install(tmp_path, "pytorch-lightning", "2.6.6")
    return root


def requirements(root: Path, kind: str, text: str) -> None:
    (root / f"requirements-{kind}.txt").write_text(text, encoding="utf-8")


def install(folder: Path, name: str, version: str, version_file: str | None = None) -> None:
    """What an installed distribution leaves on disk, as far as the doctor reads it."""
    site = folder / "site"
    for old in site.glob(f"{name.replace('-', '_')}-*.dist-info"):
        shutil.rmtree(old)
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    if version_file is not None:
        (site / name).mkdir(exist_ok=True)
        (site / name / "version.py").write_text(version_file, encoding="utf-8")
        (site / name / "__init__.py").write_text(
            "raise SystemExit('the doctor imported a framework')\n", encoding="utf-8"
        )


def nvidia_smi(folder: Path, cuda: str = "12.8", capability: str = "8.9") -> None:
    """A program on PATH that answers as nvidia-smi does on a machine with one GPU."""
    program = folder / "bin" / "nvidia-smi"
    program.parent.mkdir(exist_ok=True)
    gpu = f"570.133.07, 24564, [N/A], {capability}, NVIDIA GeForce RTX 4090"
    program.write_text(
        f'#!/bin/sh\ncase "$1" in --query*) echo "{gpu}";; *) echo "CUDA Version: {cuda} ";; esac\n', encoding="utf-8"
    )
    program.chmod(0o755)


def docker(folder: Path, answers: dict[str, str]) -> None:
    """A program on PATH that answers as docker does; what is not in `answers` fails, as with a stopped engine."""
    program = folder / "bin" / "docker"
    program.parent.mkdir(exist_ok=True)
    lines = "".join(f"'{command}'*) echo '{answer}'; exit 0;;\n" for command, answer in answers.items())
    program.write_text(f'#!/bin/sh\ncase "$*" in\n{lines}esac\nexit 1\n', encoding="utf-8")
    program.chmod(0o755)


def doctor(root: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess:
    """Without the packages of the environment that runs the tests (-S), with those beside the project."""
    path = f"{root.parent / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [sys.executable, "-S", "scripts/doctor.py", *arguments],
        cwd=root,
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": str(root.parent / "site"), "PATH": path, **environ},
    )


def diagnose(root: Path, **environ: str) -> tuple[int, dict, dict[str, dict]]:
    """Exit code, the whole JSON, and the checks by name (the worst one of each name)."""
    ran = doctor(root, "--json", "--refresh", **environ)
    assert not ran.stderr
    found = json.loads(ran.stdout)
    order = sorted(found["checks"], key=lambda check: ("ok", "warn", "fail").index(check["status"]))
    return ran.returncode, found, {check["name"]: check for check in order}


def test_a_sound_environment(project):
    ran = doctor(project)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "Ready to train" in ran.stdout
    assert "python scripts/train.py data.batch_size=" in ran.stdout
    assert (project / ".hardware.json").is_file()


def test_the_json_that_machines_read(project):
    code, found, checks = diagnose(project)
    assert code == 0
    assert set(found) == {"hardware", "recommendations", "checks", "can_train", "command"}
    assert found["can_train"] is True
    assert {"gpus", "driver", "cuda", "cores", "ram_mib", "disk_free_mib"} <= set(found["hardware"])
    assert [set(item) for item in found["recommendations"]] == [{"name", "value", "reason"}] * 5
    assert all(set(check) == {"name", "status", "detail", "fix"} for check in found["checks"])
    assert set(checks) - {"Compose"} == {"Python", "GPU", "Lightning", "Packages", "Disk", "Write access", "Docker"}


def test_a_missing_package_is_named_with_its_command(project):
    requirements(project, "cpu", "torch==2.13.0\nno-such-package>=1.5\n")
    ran = doctor(project)
    assert ran.returncode == 1
    assert "no-such-package>=1.5" in ran.stdout
    assert "pip install -r requirements-cpu.txt" in ran.stdout
    assert "Training cannot start: fix the problem above" in ran.stdout


def test_a_missing_tool_does_not_stop_training(project):
    requirements(project, "cpu", "torch==2.13.0\npre-commit\n")
    code, _, checks = diagnose(project)
    assert (code, checks["Packages"]["status"]) == (0, "warn")


def test_another_version_is_a_warning_with_both_numbers(project):
    requirements(project, "cpu", "torch==2.13.0\npytorch-lightning>=2.7,<3\n")
    code, _, checks = diagnose(project)
    assert (code, checks["Packages"]["status"]) == (0, "warn")
    assert "pytorch-lightning 2.6.6 (required: >=2.7,<3)" in checks["Packages"]["detail"]


def test_a_missing_framework(project):
    shutil.rmtree(project.parent / "site")
    code, found, checks = diagnose(project)
    assert (code, found["can_train"]) == (1, False)
    assert checks["Lightning"]["detail"] == "torch and pytorch-lightning not installed"
    assert "pip install -r requirements-cpu.txt" in checks["Lightning"]["fix"]


def test_one_of_two_frameworks_is_enough(project):
    (project / "src" / "trainers" / "paddle.py").touch()
    code, _, checks = diagnose(project)
    assert (code, checks["Lightning"]["status"], checks["Paddle"]["status"]) == (0, "ok", "warn")


@pytest.mark.parametrize("folder", ["outputs", "data"])
def test_a_folder_that_cannot_be_written(project, folder):
    (project / folder).touch()
    code, _, checks = diagnose(project)
    assert (code, checks["Write access"]["status"]) == (1, "fail")
    assert str(project / folder) in checks["Write access"]["detail"]
    assert (project / folder).is_file()


def test_the_output_folder_is_the_one_of_the_config(project):
    (project / "elsewhere").touch()
    (project / "src" / "configs").mkdir()
    (project / "src" / "configs" / "config.yaml").write_text(
        "output_dir: elsewhere/runs # big disk\n", encoding="utf-8"
    )
    code, _, checks = diagnose(project)
    assert code == 1
    assert "elsewhere" in checks["Write access"]["detail"]


@needs_posix
@pytest.mark.parametrize(("label", "status"), [("cpu", "ok"), ("cu130", "warn")])
def test_torchvision_of_another_build_than_torch(project, label, status):
    install(project.parent, "torch", "2.13.0+cpu", version_file="__version__ = '2.13.0+cpu'\ncuda = None\n")
    install(project.parent, "torchvision", "0.28.0", version_file=f"__version__ = '0.28.0+{label}'\n")
    code, _, checks = diagnose(project)
    assert (code, checks["Lightning"]["status"]) == (0, status)
    assert ("uninstall torchvision" in checks["Lightning"]["fix"]) == (status == "warn")


def test_a_cpu_build_on_a_machine_with_a_gpu(project):
    nvidia_smi(project.parent)
    requirements(project, "gpu", "--index-url https://download.pytorch.org/whl/cu126\ntorch==2.13.0\n")
    code, found, checks = diagnose(project)
    assert (code, checks["Lightning"]["status"]) == (0, "warn")
    assert "uninstall torch" in checks["Lightning"]["fix"]
    assert "pip install -r requirements-gpu.txt" in checks["Lightning"]["fix"]
    assert found["command"] == "python scripts/train.py"
    assert found["recommendations"][0]["value"] == "requirements-gpu.txt"


@needs_posix
@pytest.mark.parametrize(
    ("build", "driver", "capability", "status"),
    [
        ("12.6", "12.8", "8.9", "ok"),
        ("12.8", "12.2", "8.9", "ok"),  # CUDA's minor-version compatibility
        ("12.6", "13.0", "8.9", "ok"),
        ("13.0", "12.8", "8.9", "fail"),
        ("13.0", "13.0", "7.0", "fail"),
    ],
)
def test_a_cuda_build_against_driver_and_gpu(project, build, driver, capability, status):
    nvidia_smi(project.parent, driver, capability)
    install(project.parent, "torch", "2.13.0", version_file=f"cuda: Optional[str] = '{build}'\n")
    requirements(project, "gpu", "torch==2.13.0\n")
    code, _, checks = diagnose(project)
    assert (code, checks["Lightning"]["status"]) == (int(status == "fail"), status)
    assert bool(checks["Lightning"]["fix"]) == (status == "fail")


@pytest.fixture
def both(project) -> Path:
    """A project with both frameworks, on a machine with a GPU."""
    nvidia_smi(project.parent)
    (project / "src" / "trainers" / "paddle.py").touch()
    requirements(project, "cpu", "torch==2.13.0\npytorch-lightning==2.6.6\npaddlepaddle==3.3.1\n")
    requirements(project, "gpu", "torch==2.13.0\npytorch-lightning==2.6.6\n")
    requirements(project, "gpu-paddle", "paddlepaddle-gpu==3.3.1\n")
    shutil.rmtree(project.parent / "site")
    return project


@needs_posix
def test_each_framework_has_its_gpu_file(both):
    code, _, checks = diagnose(both)
    assert (code, checks["Lightning"]["status"], checks["Paddle"]["status"]) == (1, "fail", "fail")
    assert checks["Lightning"]["fix"].endswith("install -r requirements-gpu.txt`")
    assert checks["Paddle"]["fix"].endswith("install -r requirements-gpu-paddle.txt`")


@needs_posix
def test_the_environment_of_paddle_on_a_gpu(both):
    install(both.parent, "paddlepaddle-gpu", "3.3.1")
    install(both.parent, "paddle", "3.3.1", version_file="cuda_version = '12.6'\n")
    code, _, checks = diagnose(both)
    assert (code, checks["Paddle"]["status"], checks["Lightning"]["status"]) == (0, "ok", "ok")
    assert "an environment of its own, from requirements-gpu.txt" in checks["Lightning"]["detail"]
    assert checks["Packages"]["detail"] == "all 1 of requirements-gpu-paddle.txt"
    requirements(both, "gpu-paddle", "paddlepaddle-gpu==3.4.0\n")
    assert "paddlepaddle-gpu 3.3.1 (required: ==3.4.0)" in diagnose(both)[2]["Packages"]["detail"]


@needs_posix
def test_the_environment_of_torch_on_a_gpu(both):
    install(both.parent, "torch", "2.13.0", version_file="cuda: Optional[str] = '12.6'\n")
    install(both.parent, "pytorch-lightning", "2.6.6")
    code, _, checks = diagnose(both)
    assert (code, checks["Paddle"]["status"], checks["Lightning"]["status"]) == (0, "ok", "ok")
    assert "an environment of its own, from requirements-gpu-paddle.txt" in checks["Paddle"]["detail"]
    assert checks["Packages"]["detail"] == "all 2 of requirements-gpu.txt"


@needs_posix
def test_cpu_builds_of_both_on_a_machine_with_a_gpu(both):
    requirements(both, "gpu", "--index-url https://download.pytorch.org/whl/cu126\ntorch==2.13.0\n")
    install(both.parent, "torch", "2.13.0+cpu", version_file="cuda: Optional[str] = None\n")
    install(both.parent, "pytorch-lightning", "2.6.6")
    install(both.parent, "paddlepaddle", "3.3.1")
    install(both.parent, "paddle", "3.3.1", version_file="cuda_version = 'False'\n")
    code, _, checks = diagnose(both)
    assert (code, checks["Paddle"]["status"], checks["Packages"]["status"]) == (0, "warn", "ok")
    assert "install -r requirements-gpu-paddle.txt`, in an environment of its own" in checks["Paddle"]["fix"]
    assert "install -r requirements-gpu.txt`, in an environment of its own" in checks["Lightning"]["fix"]


@needs_posix
def test_hidden_gpus_are_pointed_out(project):
    nvidia_smi(project.parent)
    assert "hides every GPU" in diagnose(project, CUDA_VISIBLE_DEVICES="")[2]["GPU"]["detail"]
    assert diagnose(project, CUDA_VISIBLE_DEVICES="0")[2]["GPU"]["status"] == "ok"


@needs_posix
def test_a_broken_nvidia_smi_is_a_warning_that_names_the_way_out(project):
    nvidia_smi(project.parent)
    (project.parent / "bin" / "nvidia-smi").write_text("#!/bin/sh\necho Driver mismatch\nexit 18\n", encoding="utf-8")
    code, _, checks = diagnose(project)
    assert (code, checks["GPU"]["status"]) == (0, "warn")
    assert "Driver mismatch" in checks["GPU"]["detail"]
    assert "doctor.py --refresh" in checks["GPU"]["fix"]


@pytest.mark.parametrize(
    ("version", "wanted", "answer"),
    [
        ("2.13.0+cpu", "==2.13.0", True),
        ("2.13.0", "==2.13", True),
        ("2.13.0+cpu", "==2.13.0+cu126", False),
        ("2.13.1", "==2.13.*", True),
        ("2.3.1", "==2.13.*", False),
        ("2.4.0", "<2.4", False),
        ("2.3.9", ">=1.26,<2.4", True),
        ("2.10.0", ">=2.9", True),
        ("1.9.5", "~=1.9.0", True),
        ("1.10.0", "~=1.9.0", False),
        ("3.0.0rc1", ">=3.0", False),
        ("1.0", "!=1.0", False),
        ("1.0", "", True),
    ],
)
def test_version_specifiers(version, wanted, answer):
    assert satisfies(version, wanted) is answer


def test_versions_compare_by_number():
    assert release("12.10") > release("12.6")
    assert release("8.0") == release("8")


def test_requirements_files(tmp_path):
    requirements(tmp_path, "base", "numpy<2.4 # paddle\n")
    requirements(
        tmp_path,
        "cpu",
        "-r requirements-base.txt\n--index-url https://download.pytorch.org/whl/cpu\n\n# a comment\n"
        'Pillow>=11\nuvicorn[standard] >= 0.3\nsetuptools; python_version < "3.0"\nwheel; python_version >= "3.9"\n'
        'colorama; sys_platform == "nowhere" or python_version < "3.0"\n',
    )
    expected = {"numpy": "<2.4", "pillow": ">=11", "uvicorn": ">= 0.3", "wheel": ""}
    assert read_requirements(tmp_path / "requirements-cpu.txt") == expected


def test_both_ways_of_showing_it_say_the_same(capsys):
    pytest.importorskip("rich")
    gpus = (*[Gpu("nvidia", "NVIDIA [A100]", 40960, "8.0")] * 2, Gpu("amd", "Instinct", 65520, "gfx942"))
    hardware = Hardware(gpus, "570.1", "12.8", (), "Linux x86_64", "Xeon", 1, ("AVX2",), 2048, 50_000)
    checks = [Check("Python", "ok", "3.12.1"), Check("Packages", "fail", "not installed: rich", "`pip install rich`")]
    diagnosis = Diagnosis(hardware, recommend(hardware), checks)
    show_plain(diagnosis)
    plain = capsys.readouterr().out
    show_rich(diagnosis)
    rich = capsys.readouterr().out
    said = [
        "2 x NVIDIA [A100], 40.0 GiB, compute capability 8.0",
        "Instinct, 64.0 GiB, gfx942",
        "supports CUDA up to 12.8",
    ]
    said += [
        "1 core usable (AVX2)",
        "production-full",
        "not installed: rich",
        "`pip install rich`",
        "fix the problem above",
    ]
    for text in said:
        assert text in plain
        assert text in rich


ENGINE = {"version": "28.2.2", "compose version": "2.36.0", "info": '{"io.containerd.runc.v2":{},"nvidia":{}}'}


@needs_posix
@pytest.mark.parametrize(
    ("answers", "warned", "advice"),
    [
        (ENGINE, None, ""),
        ({}, "Docker", "usermod -aG docker"),
        ({"version": "28.2.2", "info": '{"nvidia":{}}'}, "Compose", "docker-compose-plugin 2.24 or newer"),
        (ENGINE | {"compose version": "v2.9.0"}, "Compose", "docker-compose-plugin 2.24 or newer"),
        (ENGINE | {"info": '{"runc":{}}'}, "NVIDIA Container Toolkit", "nvidia-ctk runtime configure"),
    ],
)
def test_what_containers_need(project, answers, warned, advice):
    """Docker that is missing or broken is named with its fix, and keeps nobody from training here."""
    nvidia_smi(project.parent)
    docker(project.parent, answers)
    code, _, checks = diagnose(project)
    names = ("Docker", "Compose", "NVIDIA Container Toolkit")
    assert code == 0
    assert [name for name in names if name in checks and checks[name]["status"] != "ok"] == [warned] * bool(warned)
    assert all(name in checks for name in names) == ("version" in answers)
    assert not warned or advice in checks[warned]["fix"]


@needs_posix
def test_the_toolkit_matters_to_machines_with_a_gpu_only(project):
    docker(project.parent, ENGINE | {"info": "{}"})
    assert "NVIDIA Container Toolkit" not in diagnose(project)[2]

"""What the template renders: exactly the right files, nothing half-rendered, and within the budgets."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import copier
import pytest
import yaml

from tests.cookiecutter_json import SETTINGS
from tests.history import git
from tests.render import EXAMPLES, EXPECTED, ROOT, copy_template, files_of, render

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # comes with pytest there

FORBIDDEN = {  # what a project made for the key alone must not import
    "lightning": {"paddle"},
    "paddle": {"torch", "torchvision", "pytorch_lightning", "lightning", "torchmetrics"},
}
SCENES = ("detection", "segmentation", "instance_segmentation", "all")
VERSIONS = yaml.safe_load((ROOT / "versions.yml").read_text("utf-8"))


def framework(project: Path) -> str:
    return EXAMPLES[project.name].get("framework", "lightning")


def requirement_lines(file: Path) -> list[str]:
    return [line for line in file.read_text("utf-8").splitlines() if line and not line.startswith(("#", "-"))]


def test_every_example_has_a_list() -> None:
    assert sorted(path.stem for path in EXPECTED.glob("*.txt")) == sorted(EXAMPLES)
    assert len(EXAMPLES) >= 5


def test_exact_files(variant: Path) -> None:
    expected = (EXPECTED / f"{variant.name}.txt").read_text("utf-8").split("\n")[:-1]
    assert files_of(variant) == expected, "if this is meant: python -m tests.render"


def test_what_working_in_place_leaves_behind_is_not_rendered(tmp_path: Path) -> None:
    template = tmp_path / "template"
    template.mkdir()
    copy_template(template)
    left = [
        ".hardware.json",
        "data/mnist/images.gz",
        "outputs/run/run.json",
        ".venv/pyvenv.cfg",
        ".nox/tests/x",
        ".DS_Store",
    ]
    left += ["src/__pycache__/x.cpython-311.pyc", "src/old.pyc", "src/old.pyo", ".pytest_cache/x", ".ruff_cache/x"]
    left += [".mypy_cache/x", ".hypothesis/x", "docs/.DS_Store"]
    for name in left:
        (template / "template" / name).parent.mkdir(parents=True, exist_ok=True)
        (template / "template" / name).write_text("left behind", "utf-8")
    copier.run_copy(str(template), tmp_path / "project", EXAMPLES["lightning"], defaults=True, quiet=True, unsafe=False)
    expected = (EXPECTED / "lightning.txt").read_text("utf-8").split("\n")[:-1]
    assert files_of(tmp_path / "project") == expected


def test_no_brace_is_left(variant: Path) -> None:
    for name in files_of(variant):
        assert not re.search(r"[{}]", name), name
        text = (variant / name).read_text("utf-8").replace("${{ ", "")  # GitHub's own
        assert not re.search(r"\{\{-?\s|\{%|\{#|\bjinja\b.*\{", text), name


def test_structured_files_parse(variant: Path) -> None:
    parsed = 0
    for path in variant.rglob("*"):
        if path.suffix in (".yaml", ".yml"):
            parsed += list(yaml.safe_load_all(path.read_text("utf-8"))) != [None]
        elif path.suffix == ".toml":
            parsed += bool(tomllib.loads(path.read_text("utf-8")))
    assert parsed > 20


def test_files_end_with_one_newline_and_no_trailing_space(variant: Path) -> None:
    for name in files_of(variant):
        text = (variant / name).read_bytes().decode()
        assert "\r" not in text, name
        assert not text or (text.endswith("\n") and not text.endswith("\n\n")), name
        assert not re.search(r"[ \t]+$", text, re.M), name


def test_formatted_and_lint_clean(variant: Path) -> None:
    for arguments in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *arguments, "--no-cache", "."]
        done = subprocess.run(command, cwd=variant, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_of_the_other_framework(variant: Path) -> None:
    chosen = framework(variant)
    if chosen == "both":
        names = files_of(variant)
        assert any("paddle" in name for name in names)
        assert any("lightning" in name for name in names)
        return
    other = "paddle" if chosen == "lightning" else "lightning"
    assert [name for name in files_of(variant) if other in name] == []
    for path in variant.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            modules = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            imported = {module.split(".")[0] for module in modules}
            assert not imported & FORBIDDEN[chosen], path
            assert not any(f".{other}" in module for module in modules), path


def test_requirements_name_the_chosen_packages(variant: Path) -> None:
    answers, packages = EXAMPLES[variant.name], VERSIONS["packages"]
    chosen = ["lightning", "paddle"] if framework(variant) == "both" else [framework(variant)]
    files = {"cpu": ("cpu", chosen), "gpu": ("gpu", chosen[:1]), "gpu-paddle": ("gpu", chosen[1:])}
    for name, (build, backends) in files.items():
        file = variant / f"requirements-{name}.txt"
        assert file.exists() == bool(backends)
        if backends:
            expected = packages["common"] + packages["tracker"][answers.get("tracker", "tensorboard")]
            for extra in answers.get("extras", SETTINGS["extras"]["default"]):
                expected += packages["extras"].get(extra, [])
            expected += packages["task"]["tabular"] if answers.get("task") in ("tabular", "all") else []
            expected += packages["task"]["scenes"] if answers.get("task", "classification") in SCENES else []
            expected += [package for backend in backends for package in packages[backend][build]]
            assert sorted(requirement_lines(file)) == sorted(expected)


def test_every_requirement_is_pinned(variant: Path) -> None:
    lines = [line for name in ("cpu", "gpu", "dev") for line in requirement_lines(variant / f"requirements-{name}.txt")]
    unpinned = [line for line in lines if "==" not in line.split(";")[0]]
    assert set(unpinned) <= {"numpy>=2.2,<2.4"}
    assert not [line for line in lines if re.match(r"lightning\b", line)], "the package is pytorch-lightning"


@pytest.mark.parametrize(
    ("answers", "cpu", "gpu"),
    [
        (
            {"gpu": "none"},  # the default is whatever this machine has
            ["--extra-index-url https://download.pytorch.org/whl/cpu"],
            ["--extra-index-url https://download.pytorch.org/whl/cu130"],
        ),
        (
            {"framework": "both", "gpu": "12.6"},
            ["--extra-index-url https://download.pytorch.org/whl/cpu"],
            ["--extra-index-url https://download.pytorch.org/whl/cu126"],
        ),
        (
            {"framework": "paddle", "gpu": "11.8"},
            [],
            ["--extra-index-url https://www.paddlepaddle.org.cn/packages/stable/cu118/"],
        ),
        (
            {"gpu": "12.6", "package_index": "china"},
            [
                "--index-url https://pypi.tuna.tsinghua.edu.cn/simple",
                "--find-links https://mirrors.aliyun.com/pytorch-wheels/cpu/",
            ],
            [
                "--index-url https://pypi.tuna.tsinghua.edu.cn/simple",
                "--find-links https://mirrors.aliyun.com/pytorch-wheels/cu126/",
            ],
        ),
        ({"package_index": "as-configured"}, [], []),
        (
            {"package_index": "mirror", "mirror_url": "https://pypi.example.com:8443/simple"},
            ["--index-url https://pypi.example.com:8443/simple"],
            ["--index-url https://pypi.example.com:8443/simple"],
        ),
    ],
)
def test_index_lines(answers: dict[str, str], cpu: list[str], gpu: list[str], tmp_path: Path) -> None:
    render(tmp_path, answers)
    for build, expected in (("cpu", cpu), ("gpu", gpu)):
        text = (tmp_path / f"requirements-{build}.txt").read_text("utf-8")
        assert [line for line in text.splitlines() if line.startswith("--")] == expected


@pytest.mark.parametrize("index", ["as-configured", "official"])
def test_where_gpu_builds_are_is_told_if_the_index_may_lack_them(index: str, tmp_path: Path) -> None:
    render(tmp_path, {"framework": "both", "gpu": "12.6", "package_index": index})
    for name, place in (("gpu", "pytorch.org/whl/cu126"), ("gpu-paddle", "paddlepaddle.org.cn/packages/stable/cu126/")):
        lines = (tmp_path / f"requirements-{name}.txt").read_text("utf-8").splitlines()
        assert [line.startswith("# Builds for CUDA 12.6 are") for line in lines if place in line] == [
            index != "official"
        ]


def test_free_text_breaks_nothing(tmp_path: Path) -> None:
    answers = {
        "project_name": "Größe und Maß",
        "description": 'He said: "100 % #1" - it\'s \\ & <b>ok</b> | > @ * ! : [x]: {y} %',
        "author": 'O\'Brien "Bob" \\ <bob@example.com>: #1',
    }
    render(tmp_path, answers)
    recorded = yaml.safe_load((tmp_path / ".copier-answers.yml").read_text("utf-8"))
    assert {key: recorded[key] for key in answers} == answers
    assert answers["description"] in (tmp_path / "README.md").read_text("utf-8")
    assert answers["author"] in (tmp_path / "LICENSE").read_text("utf-8")
    yaml.safe_load((tmp_path / "deploy/docker-compose.yml").read_text("utf-8"))


def test_licence_is_the_chosen_one(variant: Path) -> None:
    text = (variant / "LICENSE").read_text("utf-8")
    answers = EXAMPLES[variant.name]
    name = answers.get("license", "MIT")
    assert text.lstrip().startswith(
        {"Apache-2.0": "Apache License", "Proprietary": "Copyright"}.get(name, name.split("-")[0])
    )
    assert name == "Apache-2.0" or answers.get("author", "My project authors") in text


def test_answers_file_records_the_template_version(variant: Path) -> None:
    recorded = yaml.safe_load((variant / ".copier-answers.yml").read_text("utf-8"))
    assert recorded["template_version"] == VERSIONS["template"]
    assert recorded["project_name"] == EXAMPLES[variant.name]["project_name"]
    assert not {"versions", "verified", "given_answers"} & set(recorded)


def test_plain_twin_is_what_is_rendered(tmp_path: Path) -> None:
    """template/ runs in place with config.yaml, which copier skips for config.yaml.jinja."""
    render(tmp_path, {"framework": "both"})
    name = "src/configs/config.yaml"
    assert (ROOT / "template" / name).read_text("utf-8") == (tmp_path / name).read_text("utf-8")


def test_compose_has_the_tracker_that_was_chosen(variant: Path) -> None:
    services = yaml.safe_load((variant / "deploy/docker-compose.yml").read_text("utf-8"))["services"]
    assert ("tensorboard" in services) == (EXAMPLES[variant.name].get("tracker", "tensorboard") == "tensorboard")
    assert {"train", "train-gpu"} <= set(services)


def test_few_conditionals() -> None:
    templates = [path for path in (ROOT / "template").rglob("*.jinja") if ".nox" not in path.parts]
    assert templates
    for path in templates:
        assert path.suffixes[-2:] != [".py", ".jinja"], "no Python source is templated"
        if path.suffixes[-2:] != [".md", ".jinja"]:  # a page has only what the project has
            assert len(re.findall(r"\{%-?\s*(?:if|elif)\b", path.read_text("utf-8"))) <= 2, path


@pytest.mark.parametrize("files", [*(path.stem for path in EXPECTED.glob("*.txt")), "this repository"])
def test_names_that_windows_and_macos_can_hold(files: str) -> None:
    """There `Data.yaml` is `data.yaml`, and folders and files have no reserved names or characters."""
    if files == "this repository":
        listed = git(ROOT, "ls-files").splitlines()
    else:
        listed = (EXPECTED / f"{files}.txt").read_text("utf-8").splitlines()
    paths = {path.as_posix() for name in listed for path in (Path(name), *Path(name).parents)}
    assert len({path.casefold() for path in paths}) == len(paths) > 100
    assert [path for path in paths if len(path) > 120] == []  # of 260, with the user's folder and .venv
    parts = {part for path in paths for part in Path(path).parts}
    reserved = r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?|.*[<>:\"\\|?*\x00-\x1f].*|.*[. ]"
    assert [part for part in parts if re.fullmatch(reserved, part)] == []


def test_line_ends_of_windows(projects: dict[str, Path], tmp_path: Path) -> None:
    """With CRLF, as git on Windows writes them, a project runs; scripts for Linux keep theirs."""
    project = tmp_path / "project"
    shutil.copytree(projects["both"], project)
    git(project, "init", "-q")
    names = git(project, "ls-files", "--others", "-z").split("\0")[:-1]
    wanted = git(project, "check-attr", "eol", "--", *names).splitlines()
    kept = {line.split(":")[0] for line in wanted if line.endswith(": lf")}
    assert {name for name in names if (project / name).read_bytes().startswith(b"#!/")} == kept != set()
    for path in (project / name for name in names if name not in kept):
        text = path.read_bytes()
        path.write_bytes(text if b"\0" in text else text.replace(b"\n", b"\r\n"))
    code = "from src.kit.config import load_config; print(load_config([]).trainer.max_epochs)"
    for command in (["-c", code], ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_kit.py"]):
        done = subprocess.run([sys.executable, *command], cwd=project, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

"""Every question has help and a rule; a bad answer gets one sentence, and nothing is written."""

import keyword
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml
from copier._cli import CopierApp
from jinja2.environment import TemplateModule
from jinja2.sandbox import SandboxedEnvironment

from tests.cookiecutter_json import ASKED, HELP, SETTINGS, offered
from tests.render import ROOT, clean_copy, files_of, render

KEYS = ["type", "help", "multiselect", "choices", "default", "placeholder", "validator", "when"]
LONG = "x" * 201
FORBIDDEN_EVERYWHERE = [
    "",
    " ",
    LONG,
    "a\nb",
    "a\x00b",
    "a\x1b[31mb",
    "a\u202eb",
    "{{ 7 * 7 }}",
    "{% raw %}",
    " a",
    "a ",
]
BAD_SCORES = ["", "0 3", "3 6", "3.7 4", "good bad", "4", "4 3 2", "4  3", "44", "-1 3", "4 3\n", " 4 3", "{{ 4 }} 3"]
BAD = {
    "project_name": [
        *FORBIDDEN_EVERYWHERE,
        "../x",
        "a/b",
        "a\\b",
        'a"; rm -rf /',
        "$(reboot)",
        "`x`",
        "-rf",
        "a: b",
        "x" * 61,
    ],
    "project_slug": [
        *FORBIDDEN_EVERYWHERE,
        "../x",
        "My-Slug",
        "1st",
        "café",
        "a b",
        "class",
        "json",
        "torch",
        "src",
        "x" * 61,
    ],
    "description": FORBIDDEN_EVERYWHERE,
    "author": [*FORBIDDEN_EVERYWHERE, "x" * 101],
    "help_me_choose": ["", "maybe", "2"],
    "team_familiarity": BAD_SCORES,
    "deployment": BAD_SCORES,
    "performance": BAD_SCORES,
    "community": BAD_SCORES,
    "license": ["", "GPL", "mit", "../LICENSE"],
    "framework": ["", "tensorflow", "Lightning", "lightning paddle"],
    "gpu": ["", "10.2", "yes", "13"],
    "task": ["", "ocr", "Detection"],
    "dataset": ["", "imagenet", "../data"],
    "tracker": ["", "comet", "None"],
    "extras": ["", "streaming", "[ocr]", "[streaming, ocr]", "{streaming: true}"],
    "package_index": ["", "pypi"],
}
BAD_URLS = [
    *FORBIDDEN_EVERYWHERE,
    "pypi.example.com",
    "ftp://pypi.example.com/simple",
    "file:///etc/passwd",
    "https://user:secret@pypi.example.com/simple",
    "https://token@pypi.example.com/simple",
    "https://pypi.example.com/a b",
    "https://pypi.example.com/$(reboot)",
    "https://pypi.example.com/simple;rm",
    "https://pypi.example.com/simple\n--index-url https://evil.example.com",
    "https://",
    "https://-h/simple",
    "https://pypi-.example.com/simple",
    "https://pypi..com/simple",
    "https://pypi.example.com:0/simple",
    "https://pypi.example.com:65536/simple",
    "https://pypi.example.com:99999",
    "-h",
]
CASES = [(question, {question: answer}) for question, answers in BAD.items() for answer in answers]
CASES += [("mirror_url", {"package_index": "mirror", "mirror_url": url}) for url in BAD_URLS]
CASES += [("mirror_url", {"package_index": "mirror"})]
IMPOSSIBLE = (("lightning", "11.8"), ("paddle", "13.2"), ("both", "12.9"))
CASES += [("gpu", {"framework": framework, "gpu": cuda}) for framework, cuda in IMPOSSIBLE]
MISSPELT = ("framwork", {"framwork": "paddle"})


@cache
def validators() -> TemplateModule:
    """The macros and tables of questions/validators.jinja."""
    environment = SandboxedEnvironment(extensions=["jinja2_ansible_filters.AnsibleCoreFiltersExtension"])
    return environment.from_string((ROOT / "questions/validators.jinja").read_text("utf-8")).module


def test_the_table_covers_every_question() -> None:
    assert {question for question, _ in CASES} == set(ASKED)


@pytest.mark.parametrize("name", list(ASKED))
def test_question_is_complete(name: str) -> None:
    question = ASKED[name]
    help_text = HELP.get(name, question["help"])
    assert help_text.endswith(".")
    assert "{" not in help_text
    assert len(help_text) <= 76, "an 80-column terminal cuts the rest off"
    assert all(len(choice) <= 76 for choice in question.get("choices", []))
    assert f"problem('{name}', {name})" in question["validator"]
    assert list(question) == [key for key in KEYS if key in question]
    assert "default" in question or "placeholder" in question


@pytest.mark.parametrize("name", [name for name, question in ASKED.items() if "choices" in question])
def test_validators_know_the_choices(name: str) -> None:
    known = {**validators().choices, **validators().several}
    assert known[name] == list(offered(ASKED[name]))


def test_gpu_choices_are_the_verified_versions() -> None:
    versions = yaml.safe_load((ROOT / "versions.yml").read_text("utf-8"))
    assert list(offered(ASKED["gpu"])) == ["none", *versions["cuda"]]
    for framework, cuda in validators().builds.items():
        backends = ["lightning", "paddle"] if framework == "both" else [framework]
        assert cuda == [build for build in versions["cuda"] if all(build in versions["builds"][b] for b in backends)]


def test_nothing_needs_trust() -> None:
    assert not {"_tasks", "_jinja_extensions", "_migrations"} & set(SETTINGS)


@pytest.mark.parametrize(
    ("question", "answers"), [*CASES, MISSPELT], ids=[repr(list(a.items())[-1])[:60] for _, a in [*CASES, MISSPELT]]
)
def test_bad_answer(question: str, answers: dict[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    project = tmp_path / "project"
    data = [part for name, answer in answers.items() for part in ("--data", f"{name}={answer}")]
    _, code = CopierApp.run(["copier", "copy", "--defaults", *data, str(clean_copy()), str(project)], exit=False)
    lines = [line for line in capfd.readouterr().err.splitlines() if line]
    assert code == 1
    assert re.fullmatch(rf"{question}: [a-z].{{10,200}}\.", lines[0]), lines[0]
    assert lines[1:] == ["'valid_answers' is undefined"], "copier's own way to stop"
    assert not project.exists()


def test_command_line_shows_no_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "copier", "copy", "--defaults", "--data", 'project_name=a"; rm -rf /']
    done = subprocess.run(
        [*command, str(clean_copy()), "project"], cwd=tmp_path, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("project_name: use letters, digits, spaces . _ - & ( ) , ' + ! only")
    assert "Traceback" not in done.stderr
    command.insert(4, "--quiet")  # without messages, the sentence is what is undefined
    done = subprocess.run(
        [*command, str(clean_copy()), "project"], cwd=tmp_path, capture_output=True, encoding="utf-8", check=False
    )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "project_name: use letters, digits, spaces" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("3D Café", "project_3d_cafe"),
        ("Größe_2.0", "grosse_2_0"),
        ("图像分类", "project"),
        ("हिन्दी", "project"),
        ("Проект 7", "project_7"),
        ("JSON", "json_project"),
        ("class", "class_project"),
        ("x" * 60, "x" * 60),
        ("a", "a"),
        ("my--odd..name", "my_odd_name"),
        ("R&D vision", "r_d_vision"),
        ("Blütenerkennung (Pilot)", "blutenerkennung_pilot"),
        ("Rose's 🌹 & more!", "rose_s_more"),
        ("👩\u200d🔬 lab", "lab"),
    ],
)
def test_good_name_gives_a_good_slug(name: str, slug: str) -> None:
    assert validators().problem("project_name", name) == ""
    assert validators().slug(name) == slug
    assert validators().problem("project_slug", slug) == ""
    assert slug.isidentifier()
    assert not keyword.iskeyword(slug)


def test_every_standard_module_is_reserved() -> None:
    reserved = set(validators().reserved)
    missing = {name.lower() for name in sys.stdlib_module_names if not name.startswith("_")} - reserved
    assert not missing
    assert set(keyword.kwlist) - {"None", "True", "False"} <= reserved


@pytest.mark.parametrize(
    ("answers", "sentence"),
    [
        *[({"framework": name, "gpu": cuda}, f"build for CUDA {cuda}.") for name, cuda in IMPOSSIBLE],
        ({"gpu": "13.2"}, "choose the framework too, with --data framework=lightning"),
        ({"gpu": "11.8"}, "choose the framework too, with --data framework=paddle"),
        ({"gpu": "10.2"}, '"10.2" is not one of them.'),
    ],
)
def test_gpu_is_checked_before_anything_is_asked(
    answers: dict[str, str], sentence: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without --defaults copier would ask first, and answer a bad --data with a traceback in the end."""
    data = [part for name, answer in answers.items() for part in ("--data", f"{name}={answer}")]
    _, code = CopierApp.run(["copier", "copy", *data, str(clean_copy()), str(tmp_path / "project")], exit=False)
    said = capfd.readouterr()
    assert code == 1
    assert said.err.startswith("gpu: choose ") and sentence in said.err.splitlines()[0]
    assert not (tmp_path / "project").exists()


def test_an_update_checks_a_new_gpu_without_defaults() -> None:
    recorded = {"framework": "paddle", "gpu": "none"}
    said = validators().recorded_problem({"defaults": False, "data": {"gpu": "13.2"}}, recorded).strip()
    assert said.startswith("gpu: choose") and "for CUDA 13.2" in said
    assert not validators().recorded_problem({"defaults": False, "data": {"gpu": "13.0"}}, recorded).strip()


def test_existing_files_survive_a_bad_answer(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine", "utf-8")
    before = shutil.copytree(tmp_path, tmp_path.with_name("before"))
    _, code = CopierApp.run(
        ["copier", "copy", "--defaults", "--overwrite", "--data", "gpu=9", str(clean_copy()), str(tmp_path)], exit=False
    )
    assert code == 1
    assert [path.name for path in tmp_path.iterdir()] == [path.name for path in before.iterdir()]
    assert (tmp_path / "README.md").read_text("utf-8") == "mine"


@pytest.mark.parametrize(
    "url", ["https://pypi.example.com", "http://10.0.0.7:65535/root/pypi/+simple", "http://mirror:1/"]
)
def test_good_mirror(url: str) -> None:
    assert validators().problem("mirror_url", url) == ""


def test_a_name_as_people_read_it_is_safe_in_every_file(tmp_path: Path) -> None:
    name = "R&D's 👩\u200d🔬 Blütenerkennung (Pilot), v2+ !"
    render(tmp_path, {"project_name": name})
    assert yaml.safe_load((tmp_path / ".copier-answers.yml").read_text("utf-8"))["project_name"] == name
    assert f"# {name}\n" in (tmp_path / "README.md").read_text("utf-8")
    assert f"Copyright (c) {name} authors" in (tmp_path / "LICENSE").read_text("utf-8")
    named = {file for file in files_of(tmp_path) if name in (tmp_path / file).read_text("utf-8")}
    assert {"README.md", "LICENSE", "PROJECT_BUILD_LOG.md"} <= named <= OF_THE_NAME
    services = yaml.safe_load((tmp_path / "deploy/docker-compose.yml").read_text("utf-8"))
    assert services["name"] == "r-d-s-blutenerkennung-pilot-v2"


OF_THE_NAME = {"README.md", "LICENSE", "PROJECT_BUILD_LOG.md", ".copier-answers.yml"}  # none of them is run or parsed


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("leaf_doctor-2", "Leaf doctor 2"),
        ("R&D vision", "R&D vision"),
        ("Blütenerkennung (Pilot)", "Blütenerkennung (Pilot)"),
        ("🌹", "🌹"),
        ("$(reboot)", "My project"),
    ],
)
def test_the_folders_name_is_the_default(folder: str, name: str) -> None:
    assert validators().readable(folder) == name

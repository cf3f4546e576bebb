"""The second door: `cookiecutter gh:org/ml-template` asks the same and gives the same projects as copier."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

import cookiecutter_door
from cookiecutter_door import FailedHookException, problem, source
from tests.cookiecutter_json import ASKED, FILE, SETTINGS, cookiecutter_json, offered, text
from tests.render import EXAMPLES, ROOT, clean_copy, files_of
from tests.test_questions import CASES

if sys.platform == "win32":
    pytest.skip("the stand-ins for uvx and pipx are POSIX scripts", allow_module_level=True)

# Choices are cookiecutter's own to check, and it takes braces on the command line for its own code.
BAD = [
    (question, answers)
    for question, answers in CASES
    if "choices" not in ASKED[question] and question != "help_me_choose" and "{" not in "".join(answers.values())
]
BAD += [("extras", {"extras": "ocr"}), ("extras", {"extras": "streaming, ocr"})]
ONE_EACH = list(
    {question: (question, answers) for question, answers in BAD if "\x00" not in "".join(answers.values())}.values()
)
HIDE_COPIER = "import sys; sys.modules['copier'] = None"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own, where cookiecutter keeps clones and answers, and a PATH with git alone."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    (tmp_path / "out").mkdir()
    return tmp_path


def command(template: str, *arguments: str, prepare: str = "") -> list[str]:
    code = f"{prepare}\nfrom cookiecutter.__main__ import main\nmain(prog_name='cookiecutter')"
    return [sys.executable, "-c", code, template, *arguments]


def cookiecutter(
    folder: Path, template: str, *arguments: str, env: dict[str, str] | None = None, prepare: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run the command in `folder` and wait for it."""
    return subprocess.run(
        command(template, *arguments, prepare=prepare),
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


def as_arguments(answers: dict[str, Any]) -> list[str]:
    return [f"{name}={', '.join(answer) if isinstance(answer, list) else answer}" for name, answer in answers.items()]


def same_files(one: Path, other: Path) -> list[str]:
    """The files in which two projects differ; what was detected on this machine is none of the project."""
    names = {name for project in (one, other) for name in files_of(project)} - {".hardware.json"}
    return sorted(
        name
        for name in names
        if not (one / name).is_file() or not (other / name).is_file() or lines(one / name) != lines(other / name)
    )


def lines(path: Path) -> list[bytes]:
    content = path.read_bytes().splitlines(keepends=True)
    return [line for line in content if path.name != ".copier-answers.yml" or not line.startswith(b"_src_path: ")]


def test_questions_are_copiers() -> None:
    assert FILE.read_text("utf-8") == text(), "if this is meant: python -m tests.cookiecutter_json"
    ours = cookiecutter_json()
    assert [name for name in ours if not name.startswith("_")] == list(ASKED)
    assert list(ours["__prompts__"]) == list(ASKED)
    for name, question in ASKED.items():
        if question.get("multiselect"):
            assert ours[name] == ", ".join(question["default"])
            assert all(choice in ours["__prompts__"][name] for choice in offered(question))
        elif "choices" in question:
            values = list(offered(question))
            assert sorted(set(ours[name]) - {"auto"}) == sorted(values)
            assert ours[name][0] == ("auto" if "{" in question["default"] else question["default"])
            assert len(ours[name]) == len(values) + ("auto" in ours[name])
            assert set(ours["__prompts__"][name]) == {"__prompt__", *ours[name]}
        elif "{" not in str(question.get("default", "")):
            assert ours[name] == question.get("default", "")


def test_copier_is_new_enough() -> None:
    assert f"copier>={SETTINGS['_min_copier_version']}" in (ROOT / "cookiecutter_door.py").read_text("utf-8")


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_both_doors_give_the_same_project(name: str, home: Path, projects: dict[str, Path]) -> None:
    arguments = as_arguments(EXAMPLES[name])
    done = cookiecutter(home / "out", str(clean_copy()), "--no-input", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    (project,) = (home / "out").iterdir()
    assert same_files(project, projects[name]) == []
    recorded = yaml.safe_load((project / ".copier-answers.yml").read_text("utf-8"))
    assert recorded["_src_path"] == str(clean_copy())
    assert json.loads((project / ".hardware.json").read_text("utf-8"))["hardware"]["cores"] >= 1
    assert f"cd {project.name}\n" in done.stdout
    assert "data.batch_size" in done.stdout
    assert ("is recommended:" in done.stdout) == bool(EXAMPLES[name].get("help_me_choose"))


def test_unasked_answers_do_not_matter(home: Path) -> None:
    unasked = ["team_familiarity=whatever", "mirror_url=none"]
    done = cookiecutter(home / "out", str(clean_copy()), "--no-input", *unasked)
    assert done.returncode == 0, done.stdout + done.stderr
    recorded = (home / "out/my_project/.copier-answers.yml").read_text("utf-8")
    assert "team_familiarity" not in recorded
    assert "mirror_url" not in recorded


def test_slug_is_copiers(home: Path) -> None:
    done = cookiecutter(home / "out", str(clean_copy()), "--no-input", "project_name=3D Café")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (home / "out").iterdir()] == ["project_3d_cafe"]


def test_from_github_as_typed_and_updated(github: dict[str, str], tmp_path: Path) -> None:
    done = cookiecutter(tmp_path, "gh:org/ml-template", "--no-input", env=github)
    assert done.returncode == 0, done.stdout + done.stderr
    project = tmp_path / "my_project"
    recorded = yaml.safe_load((project / ".copier-answers.yml").read_text("utf-8"))
    assert recorded["_src_path"] == "gh:org/ml-template"
    assert recorded["_commit"] == "v9.8.7"
    git(project, github, "init", "--quiet")
    git(project, github, "add", "--all")
    git(project, github, "commit", "--quiet", "--message", "mine")
    assert not git(project, github, "status", "--porcelain", "--ignored").replace("!! .hardware.json\n", "")
    release(tmp_path, github, "v9.9.0")
    update = [sys.executable, "-m", "copier", "update", "--defaults"]
    done = subprocess.run(
        update, cwd=project, env=github, capture_output=True, encoding="utf-8", stdin=subprocess.DEVNULL, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (project / "docs/guide.md").read_text("utf-8").endswith("\nNew in this release.\n")
    assert yaml.safe_load((project / ".copier-answers.yml").read_text("utf-8"))["_commit"] == "v9.9.0"
    assert git(project, github, "status", "--porcelain").split() == ["M", ".copier-answers.yml", "M", "docs/guide.md"]


def test_checkout_and_full_address(github: dict[str, str], tmp_path: Path) -> None:
    release(tmp_path, github, "v9.9.0")
    address = (tmp_path / "hub/org/ml-template.git").as_uri()
    done = cookiecutter(tmp_path, address, "--checkout", "v9.8.7", "--no-input", env=github)
    assert done.returncode == 0, done.stdout + done.stderr
    recorded = yaml.safe_load((tmp_path / "my_project/.copier-answers.yml").read_text("utf-8"))
    assert (recorded["_src_path"], recorded["_commit"]) == (address, "v9.8.7")


@pytest.mark.parametrize(
    ("typed", "origin", "recorded"),
    [
        ("gh:org/ml-template", "https://github.com/org/ml-template.git", "gh:org/ml-template"),
        ("gl:org/ml-template", "https://gitlab.com/org/ml-template.git", "gl:org/ml-template"),
        ("bb:org/ml-template", "https://bitbucket.org/org/ml-template", "git+https://bitbucket.org/org/ml-template"),
        ("ours:ml-template", "git@git.example.com:ml-template", "git@git.example.com:ml-template"),
        ("ml-template", "ssh://git@example.com/ml-template", "git+ssh://git@example.com/ml-template"),
        ("https://me:secret@example.com/t.git", "https://me:secret@example.com/t.git", "user and password"),
        ("template.zip", "", "not a git repository"),
    ],
)
def test_source_is_what_copier_can_read(
    typed: str, origin: str, recorded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cookiecutter_door, "ROOT", tmp_path)
    git(tmp_path, dict(os.environ), "init", "--quiet")
    if origin:
        git(tmp_path, dict(os.environ), "remote", "add", "origin", origin)
    context = {"_template": typed, "_repo_dir": str(tmp_path)}
    if " " in recorded:
        with pytest.raises(FailedHookException, match=recorded):
            source(context)
    else:
        assert source(context) == recorded


def git(folder: Path, env: dict[str, str], *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, env=env, check=True, capture_output=True, text=True).stdout


def release(tmp_path: Path, env: dict[str, str], tag: str) -> None:
    """Put one line more into the guide."""
    hub = tmp_path / "hub/org/ml-template.git"
    with (hub / "template/docs/guide.md.jinja").open("a", encoding="utf-8") as guide:
        guide.write("\nNew in this release.\n")
    git(hub, env, "commit", "--quiet", "--all", "--message", tag)
    git(hub, env, "tag", tag)


@pytest.mark.parametrize(("question", "answers"), BAD, ids=[repr(list(a.items())[-1])[:60] for _, a in BAD])
def test_bad_answer_has_a_problem(question: str, answers: dict[str, str]) -> None:
    good = {name: asked.get("default", "") for name, asked in ASKED.items() if "{" not in str(asked.get("default", ""))}
    assert problem({**good, "help_me_choose": False}) == ""
    assert problem({**good, "help_me_choose": True, **answers}).startswith(f"{question}: ")


@pytest.mark.parametrize(("question", "answers"), ONE_EACH, ids=[question for question, _ in ONE_EACH])
def test_bad_answers_are_refused(question: str, answers: dict[str, str], home: Path) -> None:
    given = {"help_me_choose": "yes", **answers}
    done = cookiecutter(home / "out", str(clean_copy()), "--no-input", *as_arguments(given))
    assert done.returncode == 1
    assert done.stdout.startswith(f"{question}: "), done.stdout
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""
    assert list((home / "out").iterdir()) == []


@pytest.mark.parametrize("slug", ["../x", "a/b", "/tmp/never", "", "class"])
def test_a_bad_folder_name_makes_no_folder(slug: str, home: Path) -> None:
    (home / "out/here").mkdir()
    done = cookiecutter(home / "out/here", str(clean_copy()), "--no-input", f"project_slug={slug}")
    assert done.returncode == 1
    assert done.stdout.startswith("project_slug: ")
    assert files_of(home / "out") == []
    assert [path.name for path in (home / "out").rglob("*")] == ["here"]


def test_replayed_bad_answers_are_refused(home: Path) -> None:
    template = str(clean_copy())
    assert cookiecutter(home / "out", template, "--no-input", "project_name=Old").returncode == 0
    (replay,) = (home / "home/.cookiecutter_replay").glob("*.json")
    replay.write_text(replay.read_text("utf-8").replace('"Old"', '"../x"').replace('"old"', '"again"'), "utf-8")
    done = cookiecutter(home / "out", template, "--replay")
    assert done.returncode == 1
    assert "project_name: use letters" in done.stderr
    assert [path.name for path in (home / "out").iterdir()] == ["old"]


def test_files_of_the_user_are_not_touched(home: Path) -> None:
    (home / "out/my_project").mkdir()
    (home / "out/my_project/README.md").write_text("mine", "utf-8")
    done = cookiecutter(home / "out", str(clean_copy()), "--no-input", "--overwrite-if-exists")
    assert done.returncode == 1
    assert "is not empty" in done.stderr
    assert {path.name: path.read_text("utf-8") for path in (home / "out/my_project").iterdir()} == {"README.md": "mine"}


def test_without_copier_nothing_is_made(home: Path) -> None:
    env = {**os.environ, "PATH": str(home)}
    done = cookiecutter(home / "out", str(clean_copy()), "--no-input", env=env, prepare=HIDE_COPIER)
    assert done.returncode == 1
    assert done.stdout.startswith("copier renders the project and was not found: ")
    assert done.stdout.count("\n") == 1
    assert list((home / "out").iterdir()) == []


def stand_in(home: Path, name: str, lines: str) -> dict[str, str]:
    """An environment in which Python has no copier and `name` is a script; sitecustomize hides it from hooks too."""
    (home / "bin").mkdir()
    (home / "hide").mkdir()
    (home / "hide/sitecustomize.py").write_text(HIDE_COPIER, "utf-8")
    script = home / "bin" / name
    script.write_text(f"#!{sys.executable}\nimport os, sys\n{lines}\n", "utf-8")
    script.chmod(0o755)
    environment = {**os.environ, "PATH": str(home / "bin"), "PYTHONPATH": str(home / "hide"), "LOG": str(home / "log")}
    return environment


@pytest.mark.parametrize(("name", "shift"), [("uvx", 4), ("pipx", 5)])
def test_copier_by_uvx_or_pipx(name: str, shift: int, home: Path) -> None:
    lines = "open(os.environ['LOG'], 'w').write(' '.join(sys.argv[1:]))\nsys.modules.pop('copier', None)\n"
    lines += f"sys.argv = ['copier', *sys.argv[{shift}:]]\nfrom copier.__main__ import CopierApp\nCopierApp.run()"
    done = cookiecutter(home / "out", str(clean_copy()), "--no-input", env=stand_in(home, name, lines))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "copier>=9.17.2 copier copy --defaults" in (home / "log").read_text("utf-8")
    assert (home / "out/my_project/README.md").is_file()
    assert not (home / "out/my_project/.placeholder").exists()


def test_failing_copier_leaves_nothing(home: Path) -> None:
    lines = "open('half.txt', 'w').write('made')\nos.mkdir('src')\nsys.exit('no network')"
    done = cookiecutter(home / "out", str(clean_copy()), "--no-input", env=stand_in(home, "uvx", lines))
    assert done.returncode == 1
    assert "no network" in done.stderr
    assert "copier failed with exit code 1, so there is no project" in done.stderr
    assert list((home / "out").iterdir()) == []


def test_control_c_leaves_nothing(home: Path) -> None:
    lines = "import time\nopen('half.txt', 'w').write('made')\ntime.sleep(60)"
    child = subprocess.Popen(
        command(str(clean_copy()), "--no-input"),
        cwd=home / "out",
        env=stand_in(home, "uvx", lines),
        start_new_session=True,
        # a test run in the background ignores Ctrl-C, and so would its children
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: (home / "out/my_project/half.txt").exists())
    os.killpg(child.pid, signal.SIGINT)
    assert child.wait(20) != 0
    wait_for(lambda: list((home / "out").iterdir()) == [])


def wait_for(condition: Any) -> None:
    """Up to 20 s."""
    for _ in range(400):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("it did not happen within 20 s")

"""`nox -s adopt -- PATH`: a project from elsewhere comes under the template and keeps what it has."""

import re
import shutil
from pathlib import Path

import pytest
import yaml

from tests.aging import AGED
from tests.edits import files
from tests.history import NEWEST, SYNTHETIC, commit_all, conflicts, git, make_project, template_repository, update
from tests.layouts import LAYOUTS, make_layout
from tests.render import ROOT, files_of, render
from tests.test_budgets import code_lines
from tools import adopt, adopt_files

OURS = {
    "README.md": "# Leaves\n",
    "src/models/our_net.py": "import torch\n\nNET = torch.nn.Linear(3, 4)\n",
    "src/configs/config.yaml": "seed: 5\nours: true\n",
    "requirements.txt": "torch\n",
    "data/list.csv": "a,b\n",
    "docs/bild ü.bin": "\0\1",
}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A project with the standard layout that no template made."""
    project = tmp_path / "leaf (rust) study"
    for name, text in OURS.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text, "utf-8", newline="\n")
    git(tmp_path, "init", "--quiet", str(project))
    commit_all(project, "ours")
    return project


def source(tag: str, folder: Path) -> str:
    """The template as it was when `tag` was its newest release."""
    git(template_repository(), "clone", "--quiet", "--no-tags", ".", str(folder))
    git(folder, "checkout", "--quiet", "--detach", git(template_repository(), "rev-parse", tag).strip())
    git(folder, "tag", tag)
    return str(folder)


def test_files_are_added_kept_and_marked(old: Path, tmp_path: Path) -> None:
    (old / "tests").mkdir()
    render(tmp_path / "fresh", {"framework": "lightning"})
    shutil.copy2(tmp_path / "fresh/noxfile.py", old / "noxfile.py")
    commit_all(old, "a file as the template has it")
    assert adopt.adopt(old, {"source": str(template_repository())}).conflicts == ["src/configs/config.yaml"]
    for name in OURS.keys() - {"src/configs/config.yaml"}:
        assert (old / name).read_text("utf-8") == OURS[name]
    assert (old / "noxfile.py").read_bytes() == (tmp_path / "fresh/noxfile.py").read_bytes()
    assert (old / "scripts/train.py").read_bytes() == (tmp_path / "fresh/scripts/train.py").read_bytes()
    text = (old / "src/configs/config.yaml").read_text("utf-8")
    template = (tmp_path / "fresh/src/configs/config.yaml").read_text("utf-8")
    kept = re.sub(r"^(=======\n(?:.*\n)*?>>>>>>> .*\n|<<<<<<< .*\n)", "", text, flags=re.M)
    assert kept == OURS["src/configs/config.yaml"], "all of ours is there, in its order"
    assert set(template.splitlines()) <= set(text.splitlines())
    assert conflicts(old) == ["src/configs/config.yaml"]
    answers = yaml.safe_load((old / ".copier-answers.yml").read_text("utf-8"))
    assert answers["project_name"] == "leaf (rust) study"
    assert answers["framework"] == "lightning"
    assert (answers["_commit"], answers["_src_path"]) == (NEWEST, str(template_repository()))


def test_an_empty_file_becomes_the_templates(old: Path, tmp_path: Path) -> None:
    """Git merges nothing and a text without a conflict: an empty src/__init__.py used to stay, so nothing trained."""
    for name in ("src/__init__.py", "src/datasets/__init__.py"):
        (old / name).parent.mkdir(parents=True, exist_ok=True)
        (old / name).write_bytes(b"")
    commit_all(old, "packages")
    render(tmp_path / "fresh", {"framework": "lightning"})
    assert adopt.adopt(old, {"source": str(template_repository())}).conflicts == ["src/configs/config.yaml"]
    text = (tmp_path / "fresh/src/__init__.py").read_bytes()
    assert text and (old / "src/__init__.py").read_bytes() == text
    for name in files_of(tmp_path / "fresh"):
        assert (old / name).is_file() and bool((old / name).read_bytes()) == bool(
            (tmp_path / "fresh" / name).read_bytes()
        )


def test_only_what_differs_is_marked(old: Path, tmp_path: Path) -> None:
    render(tmp_path / "fresh", {})
    text = (tmp_path / "fresh/src/configs/config.yaml").read_text("utf-8")
    (old / "src/configs/config.yaml").write_text(text.replace("seed: 42", "seed: 5"), "utf-8", newline="\n")
    commit_all(old, "nearly the template's")
    assert adopt.adopt(old, {"source": str(template_repository())}).conflicts == ["src/configs/config.yaml"]
    block = "<<<<<<< yours\nseed: 5\n=======\nseed: 42\n>>>>>>> the template's\n"
    assert (old / "src/configs/config.yaml").read_text("utf-8") == text.replace("seed: 42\n", block)


def test_copier_updates_an_adopted_project(old: Path, tmp_path: Path) -> None:
    adopt.adopt(old, {"source": source(SYNTHETIC, tmp_path / "older"), "framework": "both", "tracker": "mlflow"})
    (old / "src/configs/config.yaml").write_text("seed: 5\nours: true\n", "utf-8", newline="\n")
    commit_all(old, "adopted")
    answers = old / ".copier-answers.yml"
    recorded = answers.read_text("utf-8")
    assert f"_commit: {SYNTHETIC}" in recorded and "framework: both" in recorded and "tracker: mlflow" in recorded
    answers.write_text(re.sub("_src_path: .*", f"_src_path: {template_repository()}", recorded), "utf-8")
    commit_all(old, "the template has moved")
    before = files(old)
    update(old)
    render(tmp_path / "fresh", {"framework": "both", "tracker": "mlflow", "project_name": "leaf (rust) study"})
    for name in OURS.keys() - {"src/configs/config.yaml"}:
        assert (old / name).read_bytes() == before[name]
    assert {"seed: 5", "ours: true"} <= set((old / "src/configs/config.yaml").read_text("utf-8").splitlines())
    assert (old / AGED).read_bytes() == (tmp_path / "fresh" / AGED).read_bytes()


@pytest.mark.parametrize("name", LAYOUTS)
def test_projects_from_elsewhere_keep_what_is_theirs(name: str, tmp_path: Path) -> None:
    """nox -s smoke trains in them."""
    make_layout(name, project := tmp_path / "leaf rust")
    left = adopt.adopt(project, {"source": str(template_repository())})
    answers = yaml.safe_load((project / ".copier-answers.yml").read_text("utf-8"))
    assert answers["framework"] == "lightning", "a notebook, environment.yaml or pyproject.toml says it too"
    assert set(left.conflicts) <= {"pyproject.toml", ".pre-commit-config.yaml"}
    for file, text in LAYOUTS[name].items():
        if text and file not in left.conflicts:
            assert (project / file).read_text("utf-8").startswith(text)
    for conflict in left.conflicts:
        git(project, "checkout", "--theirs", "--", conflict)
    git(project, "add", "--all")
    added = set(git(project, "ls-files").splitlines())
    render(tmp_path / "fresh", {"project_name": "leaf rust"})
    missing = set(files_of(tmp_path / "fresh")) - added
    rule = "data/" if name == "data-science" else None
    assert missing == {line.removesuffix(f" ({rule})") for line in left.hidden}
    assert bool(missing) == bool(rule), "data/ hides src/configs/data/, too"


def test_rules_of_gitignore_are_added_once() -> None:
    new = b"# Ours\n/data/\n__pycache__/\n\n*.log\n"
    expected = b"__pycache__/\n*.ckpt\n\n# From the project's template\n/data/\n*.log\n"
    assert adopt_files.extend(b"__pycache__/\n*.ckpt", new) == expected
    assert adopt_files.extend(expected, new) == expected
    assert adopt_files.extend(b"a\r\n", b"b\n") == b"a\r\n\r\n# From the project's template\r\nb\r\n"
    assert adopt_files.extend(b"\n", new) == new


def test_windows_line_ends_are_no_difference(old: Path, tmp_path: Path) -> None:
    render(tmp_path / "fresh", {})
    text = (tmp_path / "fresh/src/configs/config.yaml").read_bytes().replace(b"\n", b"\r\n")
    (old / "src/configs/config.yaml").write_bytes(text)
    commit_all(old, "from Windows")
    assert adopt.adopt(old, {"source": str(template_repository())}).conflicts == []
    assert (old / "src/configs/config.yaml").read_bytes() == text


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ({"a.py": "import torch\n"}, "lightning"),
        ({"a.py": "    from paddle.nn import Layer\n"}, "paddle"),
        ({"a.ipynb": '   "import torch\\\\n",\n'}, "lightning"),
        ({"environment.yml": "  - pytorch=2.1\n"}, "lightning"),
        (
            {"pyproject.toml": 'dependencies = ["numpy", "torch>=2"]\n', "a.py": "KINDS = ['paddlepaddle']\n"},
            "lightning",
        ),
        ({"requirements.txt": "paddlepaddle==3.0\n", "a.py": "import pytorch_lightning as pl\n"}, "both"),
        ({"a.py": "import torchless, mypaddle\n", "notes.md": "import torch\n"}, None),
    ],
)
def test_framework_is_guessed(texts: dict[str, str], expected: str | None, tmp_path: Path) -> None:
    for name, text in texts.items():
        (tmp_path / name).write_text(text, "utf-8")
    git(tmp_path, "init", "--quiet")
    commit_all(tmp_path, "ours")
    assert adopt.guess(tmp_path).get("framework") == expected


def refused(project: Path, given: dict[str, str]) -> str:
    """The one sentence, after checking that nothing changed."""
    before = files(project), git(project, "status", "--porcelain")
    with pytest.raises(adopt_files.AdoptError) as error:
        adopt.adopt(project, {"source": str(template_repository()), **given})
    assert (files(project), git(project, "status", "--porcelain")) == before
    assert "\n" not in str(error.value)
    return str(error.value)


def test_mistakes_change_nothing(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "gpu: choose none" in refused(old, {"gpu": "10.2"})
    assert "gqu: there is no such question; use project_name, " in refused(old, {"gqu": "none"})
    assert "Cannot render the template" in refused(old, {"source": "/no/such/template"})
    (old / "src/datasets").write_text("a file where the template has a folder\n", "utf-8")
    commit_all(old, "a file")
    assert "rename yours" in refused(old, {})
    (old / "README.md").write_text("changed\n", "utf-8")
    assert "uncommitted" in refused(old, {})
    assert adopt.main([str(old)]) == 1
    assert capsys.readouterr().err.startswith("error: ")
    with pytest.raises(adopt_files.AdoptError, match="top folder"):
        adopt.adopt(old / "src", {})
    with pytest.raises(adopt_files.AdoptError, match="not a folder"):
        adopt.adopt(old / "README.md", {})


def test_projects_of_the_template_are_updated_instead(tmp_path: Path) -> None:
    assert "copier update" in refused(make_project(tmp_path / "made", SYNTHETIC, "lightning"), {})


def test_without_a_commit(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    with pytest.raises(adopt_files.AdoptError, match="not a git repository with a commit"):
        adopt.adopt(tmp_path, {})


def test_failed_write_is_undone(old: Path, tmp_path: Path) -> None:
    before = files(old)
    with pytest.raises(adopt_files.AdoptError, match="nothing was changed"):
        adopt_files.write(
            old, {"README.md": b"theirs", "new/folder/file": b"theirs", "requirements.txt/file": b"theirs"}
        )
    assert files(old) == before
    assert not (old / "new").exists()


def test_it_owns_what_copier_leaves_alone() -> None:
    text = (ROOT / "copier.yml").read_text("utf-8")
    block = re.search(r"^_skip_if_exists:.*\n((?:  - .*\n)+)", text, re.M)
    assert block and tuple(yaml.safe_load(block[1])) == adopt_files.OWNED


def test_component_budgets() -> None:
    assert all(code_lines(path.read_text("utf-8")) < 100 for path in (ROOT / "tools").glob("*.py"))

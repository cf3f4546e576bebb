"""docs/contributing.md, followed literally in a copy of the template."""

import re
import subprocess
import sys
from pathlib import Path

import copier
import pytest

from tests.render import ROOT, copy_template, files_of

PAGE = (ROOT / "docs/contributing.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+)\n# (\S+)\n(.*?)^```", PAGE, re.M | re.S)


def edit(text: str, block: str) -> str:
    """Apply a diff block: find each line that starts with a space or "-", in order, and put "+" lines after it."""
    lines, position = text.splitlines(), 0
    for sign, line in ((line[:1], line[1:]) for line in block.splitlines()):
        if sign == "+":
            lines.insert(position, line)
            position += 1
        else:
            position = lines.index(line, position) + 1
            if sign == "-":
                position -= 1
                del lines[position]
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template with everything that the page adds."""
    folder = tmp_path_factory.mktemp("contributed")
    copy_template(folder)
    assert len(BLOCKS) >= 14
    for kind, name, block in BLOCKS:
        path = folder / name
        if kind == "diff":
            path.write_text(edit(path.read_text("utf-8"), block), "utf-8")
        else:
            assert not path.exists()
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block, "utf-8")
    (folder / "template/notebooks").mkdir()
    (folder / "template/notebooks/first.ipynb").write_text("{}\n", "utf-8")
    return folder


def make(template: Path, project: Path, **answers: object) -> set[str]:
    copier.run_copy(str(template), project, data=answers, defaults=True, quiet=True, unsafe=False)
    return set(files_of(project))


def test_answers_decide(template: Path, tmp_path: Path) -> None:
    plain = make(template, tmp_path / "plain")
    assert {"src/models/lightning/linear.py", "src/configs/model/linear.yaml", "src/datasets/stripes.py"} <= plain
    assert not [name for name in plain if "paddle" in name or "balanced" in name or "notebooks/" in name]
    assert "rich==15.0.1" in (tmp_path / "plain/requirements-cpu.txt").read_text("utf-8")
    other = make(template, tmp_path / "other", framework="both", task="balanced", notebook=True)
    assert {"notebooks/first.ipynb", "src/models/paddle/linear.py", "src/tasks/balanced.py"} <= other
    assert {name for name in other if "balanced" in name} == {
        *("src/tasks/balanced.py", "src/configs/task/balanced.yaml"),
        *("src/configs/model/balanced/balanced_cnn.yaml", "src/configs/loss/balanced/balanced_loss.yaml"),
    }
    assert "model: balanced_cnn" in (tmp_path / "other/src/configs/config.yaml").read_text("utf-8")


def test_bad_answers_are_refused(template: Path, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="notebook: choose true or false"):
        make(template, tmp_path / "project", notebook="maybe")


@pytest.mark.parametrize("overrides", [["task=classification", "model=linear", "data=stripes"], ["task=balanced"]])
def test_commands_know_them(overrides: list[str], template: Path, tmp_path: Path) -> None:
    pytest.importorskip("omegaconf")
    make(template, tmp_path, task="balanced")
    command = [sys.executable, "scripts/train.py", *overrides]
    done = subprocess.run([*command, "--help"], cwd=tmp_path, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    shown = (
        ("model.dropout", "data.image_size") if "model=linear" in overrides else ("loss.class_weights", "balanced_cnn")
    )
    assert all(word in done.stdout for word in shown), done.stdout
    if pytest.importorskip("importlib.util").find_spec("torch"):
        few = ["trainer.max_epochs=1", "trainer.accelerator=cpu", "tracker=none"]
        done = subprocess.run([*command, *few], cwd=tmp_path, capture_output=True, encoding="utf-8", check=False)
        assert done.returncode == 0, done.stdout + done.stderr

"""A synthetic older release, to test updates before there is a real one, and against known changes."""

import re
from pathlib import Path

AGED = "src/tasks/classification.py"  # a file that every variant has


def age(folder: Path) -> None:
    """Undo what releases typically bring.

    One package has an older pin; a data set `svhn` is still offered; one experiment does not exist yet; README, build
    log, the defaults and a docstring have a different line; so has every eighth Python file of src/ and scripts/, which
    also lacks a later line.
    """
    template = folder / "template"
    change(folder / "versions.yml", r"^template: .*", "template: 0.0.1")
    change(folder / "versions.yml", r"safetensors==[\d.]+", "safetensors==0.7.0")
    change(folder / "copier.yml", r"(?=^    My own images,)", "    House numbers: svhn\n")
    change(folder / "questions/validators.jinja", r'"dataset": \[', '"dataset": ["svhn", ')
    change(template / "README.md.jinja", r"^## .*", "## An older headline")
    change(template / "PROJECT_BUILD_LOG.md.jinja", r"^What you tried.*", "An older sentence.")
    change(template / "src/configs/config.yaml.jinja", r"^log_every_n_steps: \d+", "log_every_n_steps: 49")
    change(template / AGED, r'^""".*', '"""An older docstring.')
    (template / "src/configs/experiment/mnist_fast.yaml").unlink()
    sources = [path for name in ("src", "scripts") for path in sorted((template / name).rglob("*.py"))]
    for path in sources[::8]:
        lines = path.read_text("utf-8").splitlines(keepends=True)
        if len(lines) > 30:
            lines[10] = f"# an older line 11 of {path.name}\n"
            del lines[25]
            path.write_text("".join(lines), "utf-8", newline="\n")


def change(path: Path, pattern: str, new: str) -> None:
    """Replace the first match of a regular expression, which must be there."""
    text, count = re.subn(pattern, lambda _: new, path.read_text("utf-8"), count=1, flags=re.M)
    assert count == 1, f"{path} has nothing like {pattern}"
    path.write_text(text, "utf-8", newline="\n")

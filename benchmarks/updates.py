"""Rendering and updating against a plain copier template of the same files, and what random edits lose.

python -m benchmarks.updates           # about 2 minutes on 2 cores
"""

import random
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import copier
import yaml

from tests.edits import KINDS, apply, files, losses
from tests.history import (
    NEWEST,
    SYNTHETIC,
    cases,
    commit_all,
    git,
    make_project,
    releases,
    rendered,
    template_repository,
    update,
)
from tests.render import EXAMPLES

EXAMPLE = "both"  # the largest
ROUNDS = 7
EDITS = 40  # in one update


def main() -> None:
    """Print both tables."""
    with tempfile.TemporaryDirectory() as folder:
        print("\n".join([*speed(Path(folder)), "", *kept(Path(folder))]))


def speed(folder: Path) -> list[str]:
    """The best of several measurements of both templates, taken in turns."""
    plain = plain_template(folder / "plain-template")
    ours, answers = template_repository(), EXAMPLES[EXAMPLE]
    copy(plain, folder / "plain-old", {}, SYNTHETIC)
    git(folder / "plain-old", "init", "--quiet")
    commit_all(folder / "plain-old", "made")
    times: dict[tuple[str, str], list[float]] = {}
    for number in range(ROUNDS):
        at = folder / str(number)
        shutil.copytree(folder / "plain-old", at / "plain-update")
        make_project(at / "our-update", SYNTHETIC, EXAMPLE)
        measured: dict[tuple[str, str], Callable[[], None]] = {
            ("render", "ours"): lambda at=at: copy(ours, at / "our-copy", answers, NEWEST),
            ("render", "plain"): lambda at=at: copy(plain, at / "plain-copy", {}, NEWEST),
            ("update", "ours"): lambda at=at: update(at / "our-update"),
            ("update", "plain"): lambda at=at: update(at / "plain-update"),
        }
        for key, action in measured.items():
            begin = time.perf_counter()
            action()
            times.setdefault(key, []).append(time.perf_counter() - begin)
        changed = [len(git(at / f"{kind}-update", "status", "--porcelain").splitlines()) for kind in ("our", "plain")]
        assert changed[0] == changed[1], f"both updates change the same files: {changed}"
        shutil.rmtree(at)
    rows = [
        f"| `{EXAMPLE}`, {len(files(rendered(NEWEST, EXAMPLE)))} files | this template | plain template | ratio |",
        "|---|---:|---:|---:|",
    ]
    for what in ("render", "update"):
        mine, theirs = min(times[what, "ours"]), min(times[what, "plain"])
        rows.append(f"| {what} | {mine:.2f} s | {theirs:.2f} s | {mine / theirs:.2f} |")
    return rows


def copy(source: Path, folder: Path, answers: dict[str, str], tag: str) -> None:
    """Make a project without a word."""
    copier.run_copy(str(source), folder, dict(answers), vcs_ref=tag, defaults=True, quiet=True, unsafe=False)


def plain_template(folder: Path) -> Path:
    """The files of both releases as a template with as many questions and .jinja files, but no logic."""
    folder.mkdir()
    git(folder, "init", "--quiet")
    for tag in (SYNTHETIC, NEWEST):
        made = rendered(tag, EXAMPLE)
        shutil.rmtree(folder / "template", ignore_errors=True)
        shutil.copytree(made, folder / "template", ignore=shutil.ignore_patterns(".git"))
        settings = {"_subdirectory": "template", "_skip_if_exists": ["README.md", "PROJECT_BUILD_LOG.md"]}
        recorded = yaml.safe_load((made / ".copier-answers.yml").read_text("utf-8"))
        questions = {key: {"type": "str", "default": str(recorded[key])} for key in recorded if not key.startswith("_")}
        (folder / "copier.yml").write_text(yaml.safe_dump(settings | questions), "utf-8")
        (folder / "template/.copier-answers.yml").unlink()
        answers = folder / "template/{{ _copier_conf.answers_file }}.jinja"
        answers.write_text("{{ _copier_answers | to_nice_yaml }}", "utf-8")
        for path in [*(template_repository() / "template").rglob("*.jinja")]:
            name = path.relative_to(template_repository() / "template").as_posix().removesuffix(".jinja")
            if (folder / "template" / name).is_file():
                (folder / "template" / name).rename(folder / "template" / f"{name}.jinja")
        commit_all(folder, tag)
        git(folder, "tag", tag)
    return folder


def kept(folder: Path) -> list[str]:
    """Random edits of every example of every older release, updated to the working tree."""
    chance, lost = random.Random(0), 0
    for number, (release, example) in enumerate(cases()):
        project = make_project(folder / f"edited-{number}", release, example)
        draw = [
            (chance.choice(KINDS), chance.randrange(1000), chance.randrange(60), chance.random() < 0.5)
            for _ in range(EDITS)
        ]
        apply(project, example, draw, release)
        commit_all(project, "our work")
        edited = files(project)
        update(project)
        lost += len(losses(project, example, edited, release))
    return [
        "| releases updated from | examples | random edits in each | edits in all | lost |",
        "|---|---:|---:|---:|---:|",
        f"| {len(releases())} + a synthetic one | {len(EXAMPLES)} | {EDITS} | {len(cases()) * EDITS} | {lost} |",
    ]


if __name__ == "__main__":
    main()

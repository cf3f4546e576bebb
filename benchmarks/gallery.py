"""Train each task of a rendered project with its own recipe, and keep what the runs look like in examples/gallery/.

nox -s gallery                # all tasks: about 20 minutes of one core
nox -s gallery -- tabular     # some of them
"""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from tests import smoke
from tests.render import ROOT, render

GALLERY = ROOT / "examples" / "gallery"
PROJECT = ROOT / ".nox" / "gallery"
WIDTH = 900  # of the pictures, in pixels
PICTURES = ("training-images", "loss", "test-samples", "test-confusion", "test-curves")  # those that a run has


class Example(NamedTuple):
    """What is trained with which keys, and the score of its test split that is shown."""

    keys: str
    score: str


EXAMPLES = {
    "classification": Example("", "accuracy"),
    "detection": Example("experiment=digit_scenes_detection", "map50"),
    "segmentation": Example("experiment=digit_scenes_segmentation", "miou"),
    "instance_segmentation": Example("experiment=digit_scenes_instances", "mask_map50"),
    "tabular": Example("task=tabular", "accuracy"),
}


def main(names: list[str]) -> int:
    """Train the named tasks, or all, and write the page that shows every task's pictures."""
    if unknown := [name for name in names if name not in EXAMPLES]:
        print(f"There is no {', '.join(unknown)}. Available: {', '.join(EXAMPLES)}.")
        return 1
    shutil.rmtree(PROJECT, ignore_errors=True)
    render(PROJECT, {"framework": "lightning", "task": "all", "extras": []})
    python = smoke.install(PROJECT)
    for name in names or EXAMPLES:
        train(name, python)
    (GALLERY / "README.md").write_text("\n".join(page()), "utf-8", newline="\n")
    return 0


def train(name: str, python: Path) -> None:
    """Train one task and keep its pictures and figures."""
    keys, score = EXAMPLES[name]
    if "scenes" in keys:
        smoke.call([python, "scripts/download.py", "data=digit_scenes"], PROJECT)
    shutil.rmtree(PROJECT / "outputs", ignore_errors=True)
    before = used()
    smoke.call([python, "scripts/train.py", *keys.split(), "tracker=none"], PROJECT)
    figures: dict[str, Any] = {"cpu_seconds": round(used() - before)}
    [run] = (PROJECT / "outputs").glob("*/run.json")
    figures |= {"score": json.loads((run.parent / "evaluation-test.json").read_text("utf-8"))[score]}
    shutil.rmtree(GALLERY / name, ignore_errors=True)
    (GALLERY / name).mkdir(parents=True)
    for picture in PICTURES:
        if (path := run.parent / "pictures" / f"{picture}.png").exists():
            shrink(path, GALLERY / name / path.name)
    shutil.copy(run.parent / "config.yaml", GALLERY / name)
    (GALLERY / name / "figures.json").write_text(json.dumps(figures, indent=2) + "\n", "utf-8", newline="\n")


def used() -> float:
    """CPU seconds of the commands so far."""
    times = os.times()
    return times.children_user + times.children_system


def shrink(source: Path, target: Path) -> None:
    """Save a picture at most `WIDTH` wide in 128 colours, a fifth of its size."""
    with Image.open(source) as picture:
        picture = picture.convert("RGB")
        picture.thumbnail((WIDTH, 10 * WIDTH))
        picture.quantize(128).save(target, optimize=True)


def page() -> list[str]:
    """The gallery's README: for each task its command, figures and pictures."""
    lines = ["# Gallery", "", "What a project's own commands made of their example data, in Lightning on one core of a"]
    lines += ["CPU: `nox -s gallery` writes this page and its pictures from a rendered project.", ""]
    for name, (keys, score) in EXAMPLES.items():
        lines += [f"## {name.replace('_', ' ').capitalize()}", ""]
        if not (GALLERY / name / "figures.json").exists():
            lines += [f"Not made yet: `nox -s gallery -- {name}`.", ""]
            continue
        figures = json.loads((GALLERY / name / "figures.json").read_text("utf-8"))
        lines += ["```"]
        lines += ["python scripts/download.py data=digit_scenes"] * ("scenes" in keys)
        lines += [f"python scripts/train.py {keys}".strip(), "```", ""]
        lines += [f"{figures['cpu_seconds']} s of CPU time; {score} of the test split {figures['score']:.3f};"]
        lines += [f"[config.yaml]({name}/config.yaml)", ""]
        shown = [picture for picture in PICTURES if (GALLERY / name / f"{picture}.png").exists()]
        lines += [f"![{picture} of {name}]({name}/{picture}.png)" for picture in shown] + [""]
    return [*lines[:-1], ""]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

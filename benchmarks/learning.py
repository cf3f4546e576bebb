"""Train every task's network on small data until it has learned it: the scores beside their targets.

    python benchmarks/learning.py                                     # in the folder of a generated project
    python benchmarks/learning.py paddle digit_scenes_segmentation    # some frameworks, some proofs

Each training is a process of its own. Its row is kept in outputs/learning/rows.jsonl, so a bench that was stopped goes
on where it was; delete that file to measure again. COCO128 comes from data/coco128, or is downloaded there.
Prints a Markdown table.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path.cwd()))

import yaml

FRAMEWORKS = ("lightning", "paddle")
OUTPUT = Path("outputs") / "learning"
ROWS = OUTPUT / "rows.jsonl"
PHOTOS = Path("data") / "coco16"
COUNT = 16  # photos that are learned by heart
REPEATS = 5  # of each photo in an epoch: validation after every pass would take a third of the time


class Proof(NamedTuple):
    """What is trained with which keys, on what, and the score that its test split must reach."""

    keys: str
    task: str
    model: str
    data: str
    score: str
    target: float
    seeds: tuple[int, ...] = (42,)


PROOFS = {
    "coco128_overfit": Proof(
        "experiment=coco128_overfit", "detection", "YOLOv10n", f"the same {COUNT} photos of COCO128", "map50", 0.9
    ),
    "digit_scenes_detection": Proof(
        "experiment=digit_scenes_detection", "detection", "YOLOv10n", "digit scenes", "map50", 0.9
    ),
    "digit_scenes_segmentation": Proof(
        "experiment=digit_scenes_segmentation", "segmentation", "DeepLabV3+, ResNet-18", "digit scenes", "miou", 0.85
    ),
    "digit_scenes_instances": Proof(
        "experiment=digit_scenes_instances",
        "instance segmentation",
        "Mask R-CNN, ResNet-18",
        "digit scenes",
        "mask_map50",
        0.6,
    ),
    # its test split has 86 rows, one of which is 1.2 %: a single seed tells little
    "breast_cancer": Proof("task=tabular", "tabular", "MLP", "breast cancer", "accuracy", 0.96, (0, 1, 2, 3, 4)),
}
SCORES = {"map50": "mAP50", "miou": "mIoU", "mask_map50": "mask mAP50", "accuracy": "accuracy"}


def main(argv: list[str]) -> int:
    """Train what has no row yet, and print all rows."""
    if unknown := [name for name in argv if name not in (*PROOFS, *FRAMEWORKS)]:
        print(f"There is no {', '.join(unknown)}. Available: {', '.join((*PROOFS, *FRAMEWORKS))}.")
        return 1
    wanted = [
        (proof, framework)
        for proof in [name for name in argv if name in PROOFS] or PROOFS
        for framework in [name for name in argv if name in FRAMEWORKS] or FRAMEWORKS
    ]
    OUTPUT.mkdir(parents=True, exist_ok=True)
    done = read_rows()
    for proof, framework in wanted:
        if (proof, framework) not in done:
            prepare(proof)
            row = train(proof, framework)
            with ROWS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
    print("\n".join(table([row for key, row in read_rows().items() if key in wanted])), flush=True)
    return 0


def read_rows() -> dict[tuple[str, str], dict[str, Any]]:
    """(proof, framework) -> the newest row of it."""
    lines = ROWS.read_text("utf-8").splitlines() if ROWS.is_file() else []
    rows = [json.loads(line) for line in lines]
    return {(row["proof"], row["framework"]): row for row in rows}


def prepare(proof: str) -> None:
    """Put the data where the training looks for it; breast cancer comes with scikit-learn."""
    if proof.startswith("digit_scenes"):
        run("scripts/download.py", "data=digit_scenes")
    elif proof == "coco128_overfit" and not PHOTOS.is_dir():
        if not Path("data/coco128/images/train2017").is_dir():
            run("scripts/download.py", "data=coco128")
        copy_photos(Path("data/coco128"), PHOTOS)


def copy_photos(source: Path, target: Path) -> None:
    """Make a YOLO folder whose train, val and test are the same photos, the first ones of COCO128."""
    from src.kit.scenes import COCO_CLASSES

    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    names = [photo.stem for photo in sorted((source / "images" / "train2017").glob("*.jpg"))[:COUNT]]
    for split, repeats in (("train", REPEATS), ("val", 1), ("test", 1)):
        for kind, suffix in (("images", ".jpg"), ("labels", ".txt")):
            (partial / kind / split).mkdir(parents=True)
            for name in names:
                for k in range(repeats):
                    copy = partial / kind / split / f"{name}-{k}{suffix}"
                    shutil.copy2(source / kind / "train2017" / f"{name}{suffix}", copy)
    (partial / "data.yaml").write_text(yaml.safe_dump({"names": list(COCO_CLASSES)}), "utf-8")
    partial.replace(target)


def train(proof: str, framework: str) -> dict[str, Any]:
    """Train in new processes: wall time and CPU time in seconds, and the mean score of the best checkpoints."""
    folder, about = OUTPUT / f"{proof}-{framework}", PROOFS[proof]
    shutil.rmtree(folder, ignore_errors=True)  # of a bench that was stopped
    wall, cpu = time.perf_counter(), cpu_seconds()
    for seed in about.seeds:
        keys = [about.keys, f"framework={framework}", f"seed={seed}", "tracker=none", f"output_dir={folder}"]
        run("scripts/train.py", *keys)
    wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
    scores = [json.loads(path.read_text("utf-8"))[about.score] for path in folder.glob("*/evaluation-test.json")]
    assert len(scores) == len(about.seeds), scores
    return {"proof": proof, "framework": framework, "wall_s": wall, "cpu_s": cpu, "score": statistics.mean(scores)}


def run(*arguments: str) -> None:
    """Run a command of the project; its output goes to stderr, beside the table."""
    subprocess.run([sys.executable, *arguments], check=True, stdout=sys.stderr)


def cpu_seconds() -> float:
    """CPU time of all processes that have ended, over all their threads; 0 on Windows, which does not count it."""
    times = os.times()
    return times.children_user + times.children_system


def table(rows: list[dict[str, Any]]) -> list[str]:
    """One line for each training."""
    lines = ["| task | model | data | framework | seconds | CPU seconds | score | target |"]
    lines.append("|---|---|---|---|---:|---:|---:|---:|")
    for row in rows:
        proof = PROOFS[row["proof"]]
        lines.append(
            f"| {proof.task} | {proof.model} | {proof.data} | {row['framework']} | {row['wall_s']:.0f} "
            f"| {row['cpu_s']:.0f} | {SCORES[proof.score]} {row['score']:.3f} | {proof.target:g} |"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

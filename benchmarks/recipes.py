"""Training with and without a recipe, in pairs: test scores of the same seeds, splits and batches.

    python benchmarks/recipes.py                            # in the folder of a generated project
    python benchmarks/recipes.py fine_tuning lightning      # some of: fine_tuning, augment, class_weights; frameworks

Fine-tuning and augmentation take data/cifar10, class weights data/digit_scenes. Rows are kept in
outputs/recipes/rows.jsonl, so that a stopped bench goes on where it was. Prints Markdown tables.
"""

import json
import math
import statistics
import sys
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path.cwd()))

from src.kit.config import load_config
from src.kit.run import Run
from src.kit.training import Experiment, find_checkpoint, load_backend, load_trainer

OUTPUT = Path("outputs") / "recipes"
ROWS = OUTPUT / "rows.jsonl"
FRAMEWORKS = ("lightning", "paddle")
SEEDS = (0, 1, 2)
RARE, KEPT = ("8", "9"), 20  # of the training scenes that hold a rare digit, one in so many is kept
RARE_ROOT = Path("data") / "rare_digits"
PHOTOS = ["data=cifar10", "model=small_cnn"]
# Six classes, all of their images, are learned before; four others, 100 images each, are the small set.
BEFORE = [*PHOTOS, "data.classes=[airplane,bird,deer,frog,horse,ship]", "trainer.max_epochs=5", "seed=0"]
SMALL = [*PHOTOS, "data.classes=[automobile,cat,dog,truck]", "data.val_fraction=0.98", "data.batch_size=32"]
SMALL += ["trainer.max_epochs=30", "trainer.limit_val_batches=8"]
THOUSAND = [*PHOTOS, "data.val_fraction=0.98", "data.batch_size=64", "trainer.max_epochs=60"]
THOUSAND += ["trainer.limit_val_batches=4"]
SCENES = ["task=segmentation", "model=deeplab_resnet18", "model.width=16", "data=digit_scenes", "data.image_size=64"]
SCENES += [f"data.root={RARE_ROOT.as_posix()}", "data.batch_size=8", "trainer.max_epochs=8", "optimizer.lr=0.004"]


def main(argv: list[str]) -> int:
    """Train what has no row yet, and print all of them."""
    parts = {"fine_tuning": fine_tuning, "augment": augmentation, "class_weights": class_weights}
    if unknown := [name for name in argv if name not in (*parts, *FRAMEWORKS)]:
        print(f"There is no {', '.join(unknown)}. Available: {', '.join((*parts, *FRAMEWORKS))}.")
        return 1
    OUTPUT.mkdir(parents=True, exist_ok=True)
    frameworks = [name for name in argv if name in FRAMEWORKS] or list(FRAMEWORKS)
    print("| what | framework | score | without | with | difference | better |\n|---|---|---|---:|---:|---:|---:|")
    for name in [name for name in argv if name in parts] or parts:
        for framework in frameworks:
            for row in parts[name](framework):
                print(row, flush=True)
    return 0


def fine_tuning(framework: str) -> list[str]:
    """400 photos of four classes, learned from nothing, and from the weights of six others."""
    run = train([*BEFORE, f"framework={framework}"])["run"]
    weights = f"model.weights={find_checkpoint(Path(run), 'best') / 'model.safetensors'}"
    return pairs("fine-tuning, 4 classes of CIFAR-10", framework, SMALL, [], [weights], "accuracy")


def augmentation(framework: str) -> list[str]:
    """1,000 photos of CIFAR-10 as they are, mirrored and shifted, and with the stronger changes."""
    rows = []
    for name in ("basic", "advanced"):
        words = (["data.augment=none"], [f"data.augment={name}"])
        rows += pairs(f"`data.augment={name}`, 1,000 of CIFAR-10", framework, THOUSAND, *words, "accuracy")
    return rows


def class_weights(framework: str) -> list[str]:
    """Digit scenes in which two digits are rare, without and with class weights."""
    make_rare()
    rows = []
    for name in ("log", "balanced"):
        words = (["loss.class_weights=none"], [f"loss.class_weights={name}"])
        for score in ("miou", "rare"):
            rows += pairs(f"`loss.class_weights={name}`, digit scenes", framework, SCENES, *words, score)
    return rows


def make_rare() -> None:
    """Copy the digit scenes' annotations without most of the training scenes that hold a rare digit."""
    source = RARE_ROOT.with_name("digit_scenes")
    if RARE_ROOT.is_dir():
        return
    (RARE_ROOT / "annotations").mkdir(parents=True)
    for split in ("train", "val", "test"):
        (RARE_ROOT / split).symlink_to((source / split).resolve(), target_is_directory=True)
        content = json.loads((source / "annotations" / f"{split}.json").read_text("utf-8"))
        if split == "train":
            rare = {each["id"] for each in content["categories"] if each["name"] in RARE}
            holding = {each["image_id"] for each in content["annotations"] if each["category_id"] in rare}
            dropped = {image for k, image in enumerate(sorted(holding)) if k % KEPT}
            content["images"] = [each for each in content["images"] if each["id"] not in dropped]
            content["annotations"] = [each for each in content["annotations"] if each["image_id"] not in dropped]
        (RARE_ROOT / "annotations" / f"{split}.json").write_text(json.dumps(content), "utf-8")


def pairs(what: str, framework: str, shared: list[str], without: list[str], recipe: list[str], score: str) -> list[str]:
    """One row: the same seeds without and with a recipe, in per cent, and the paired difference."""
    words = [[*shared, f"framework={framework}", f"seed={seed}"] for seed in SEEDS]
    before, after = ([100 * train([*each, *more])[score] for each in words] for more in (without, recipe))
    differences = [second - first for first, second in zip(before, after, strict=True)]
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    means = " | ".join(f"{statistics.mean(each):.1f} ± {statistics.stdev(each):.1f}" for each in (before, after))
    better = f"{sum(each > 0 for each in differences)} of {len(differences)}"
    return [
        f"| {what} | {framework} | {score} | {means} | {statistics.mean(differences):+.1f} ± {error:.1f} | {better} |"
    ]


def train(words: list[str]) -> dict[str, Any]:
    """The run's folder and the test scores of its best checkpoint; from the rows, if it has been trained already."""
    key = " ".join(words)
    if key not in (rows := read_rows()):
        cfg = load_config([*words, "tracker=none", f"output_dir={OUTPUT.as_posix()}"])
        experiment = Experiment(cfg)
        with Run(cfg) as run:
            load_trainer(cfg).fit(experiment, run)
        backend = load_backend(cfg)
        network = backend.load_network(experiment, find_checkpoint(run.path, "best"))
        scores = experiment.evaluate(backend.predict(experiment, network, "test"), "test")
        rows[key] = {"run": run.path.as_posix()} | {
            name: scores[name] for name in ("accuracy", "miou") if name in scores
        }
        if "miou" in scores:
            rare = [each["iou"] for each in scores["per_class"] if each["class"] in RARE]
            rows[key]["rare"] = statistics.mean(rare)
        with ROWS.open("a", encoding="utf-8") as file:
            file.write(json.dumps([key, rows[key]]) + "\n")
    return rows[key]


@cache
def read_rows() -> dict[str, dict[str, Any]]:
    """Words -> run and scores, of what has been trained."""
    return dict(map(json.loads, ROWS.read_text("utf-8").splitlines())) if ROWS.is_file() else {}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

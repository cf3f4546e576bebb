"""Training with and without a recipe, in pairs: test scores of the same seeds, splits and batches.

    python benchmarks/recipes.py                            # in the folder of a generated project
    python benchmarks/recipes.py fine_tuning lightning      # some of: teacher, ema, fine_tuning, augment,
                                                            # class_weights; frameworks

Class weights take data/digit_scenes, teachers the digits too, everything else data/cifar10. Students in Paddle have
teachers trained in Lightning. Rows are kept in outputs/recipes/rows.jsonl, so that a stopped bench goes on where it
was. Prints a Markdown table.
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
SEEDS, MORE_SEEDS = 3, 5  # more where differences are small
RARE, KEPT = ("8", "9"), 20  # of the training scenes that hold a rare digit, one in so many is kept
RARE_ROOT = Path("data") / "rare_digits"
PHOTOS = ["data=cifar10", "model=small_cnn"]
# Six classes, all of their images, are learned before; four others, 100 images each, are the small set.
BEFORE = [*PHOTOS, "data.classes=[airplane,bird,deer,frog,horse,ship]", "trainer.max_epochs=5", "seed=0"]
SMALL = [*PHOTOS, "data.classes=[automobile,cat,dog,truck]", "data.val_fraction=0.98", "data.batch_size=32"]
SMALL += ["trainer.max_epochs=30", "trainer.limit_val_batches=8"]
THOUSAND = [*PHOTOS, "data.val_fraction=0.98", "data.batch_size=64", "trainer.limit_val_batches=4"]
TEN_THOUSAND = [*PHOTOS, "data.val_fraction=0.8", "data.batch_size=128", "trainer.limit_val_batches=4"]
TEACHING = ["distill.temperature=2", "distill.weight=1.0"]  # the teacher's answers alone: they are soft for blends too
# 180 digits and 1,000 photos; teachers are wider, see whole images only, and 10,000 photos
DIGITS = ["data=digits", "model=small_cnn", "data.val_fraction=0.45", "data.test_fraction=0.45"]
STUDENTS = {
    "digits": [*DIGITS, "trainer.max_epochs=400", "model.width=8", "data.mixup_alpha=1.0"],
    "cifar10": [*THOUSAND, "trainer.max_epochs=60", "data.mixup_alpha=1.0"],
}
TEACHERS = {
    "digits": [*DIGITS, "trainer.max_epochs=200", "model.width=32", "model.dropout=0.3"],
    "cifar10": [*TEN_THOUSAND, "trainer.max_epochs=16", "model.width=24", "model.dropout=0.3"],
}
SCENES = ["task=segmentation", "model=deeplab_resnet18", "model.width=16", "data=digit_scenes", "data.image_size=64"]
SCENES += [f"data.root={RARE_ROOT.as_posix()}", "data.batch_size=8", "trainer.max_epochs=8", "optimizer.lr=0.004"]


def main(argv: list[str]) -> int:
    """Train what has no row yet, and print all of them."""
    parts = {"teacher": teachers, "ema": averages, "fine_tuning": fine_tuning, "augment": augmentation}
    parts["class_weights"] = class_weights
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


def teachers(framework: str) -> list[str]:
    """Students without and with their teachers' answers."""
    rows = []
    for data, shared in STUDENTS.items():
        runs = [train([*TEACHERS[data], "framework=lightning", f"seed={seed}"]) for seed in range(MORE_SEEDS)]
        what = f"teacher of {spread([100 * run['accuracy'] for run in runs])}, {data}"
        taught = [[f"distill.teacher={run['run']}", *TEACHING] for run in runs]
        rows.append(pairs(what, framework, shared, [[]] * MORE_SEEDS, taught, "accuracy"))
    return rows


def averages(framework: str) -> list[str]:
    """1,000 photos of CIFAR-10 without and with averaged weights."""
    without, averaged = [[]] * MORE_SEEDS, [["trainer.ema=0.99"]] * MORE_SEEDS
    rows = []
    for schedule in ("one_cycle", "constant"):
        words = [*THOUSAND, "trainer.max_epochs=30", f"scheduler={schedule}"]
        what = f"`trainer.ema=0.99`, `scheduler={schedule}`, 1,000 of CIFAR-10"
        rows.append(pairs(what, framework, words, without, averaged, "accuracy"))
    return rows


def fine_tuning(framework: str) -> list[str]:
    """400 photos of four classes, learned from nothing, and from the weights of six others."""
    run = train([*BEFORE, f"framework={framework}"])["run"]
    weights = [f"model.weights={find_checkpoint(Path(run), 'best') / 'model.safetensors'}"]
    what = "fine-tuning, 4 classes of CIFAR-10"
    return [pairs(what, framework, SMALL, [[]] * SEEDS, [weights] * SEEDS, "accuracy")]


def augmentation(framework: str) -> list[str]:
    """1,000 photos of CIFAR-10 as they are, mirrored and shifted, and with the stronger changes."""
    shared, plain = [*THOUSAND, "trainer.max_epochs=60"], [["data.augment=none"]] * SEEDS
    rows = []
    for name in ("basic", "advanced"):
        what, words = f"`data.augment={name}`, 1,000 of CIFAR-10", [[f"data.augment={name}"]] * SEEDS
        rows.append(pairs(what, framework, shared, plain, words, "accuracy"))
    return rows


def class_weights(framework: str) -> list[str]:
    """Digit scenes in which two digits are rare, without and with class weights."""
    make_rare()
    plain = [["loss.class_weights=none"]] * SEEDS
    rows = []
    for name in ("log", "balanced"):
        what, words = f"`loss.class_weights={name}`, digit scenes", [[f"loss.class_weights={name}"]] * SEEDS
        rows += [pairs(what, framework, SCENES, plain, words, score) for score in ("miou", "rare")]
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


def pairs(
    what: str, framework: str, shared: list[str], without: list[list[str]], recipe: list[list[str]], score: str
) -> str:
    """One row: each seed without and with a recipe's words, in per cent, and the paired difference.

    The difference has its standard error, everything else its standard deviation.
    """
    before, after = (
        [
            100 * train([*shared, f"framework={framework}", f"seed={seed}", *own])[score]
            for seed, own in enumerate(words)
        ]
        for words in (without, recipe)
    )
    differences = [second - first for first, second in zip(before, after, strict=True)]
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    better = f"{sum(each > 0 for each in differences)} of {len(differences)}"
    change = f"{statistics.mean(differences):+.2f} ± {error:.2f}"
    return f"| {what} | {framework} | {score} | {spread(before)} | {spread(after)} | {change} | {better} |"


def spread(values: list[float]) -> str:
    """Mean and standard deviation."""
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"


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

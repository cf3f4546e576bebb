"""Images a second in squares and in rectangles (`data.rectangular`), in pairs: evaluation, and training steps.

    python benchmarks/rectangles.py                           # in the folder of a generated project with data/coco128
    python benchmarks/rectangles.py lightning training 320 16 # a framework, what, the size and the batch

YOLOv10n on COCO128's photos, with decoding. Times are processor time, so that a busy machine counts less. Prints rows
of a Markdown table: the median of each side, the median ratio and its range, and the share of the squares' pixels.
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path.cwd()))

from src.kit.config import load_config
from src.kit.training import Experiment, load_backend, load_benchmark

PAIRS = 3
SIDES = ("none", "all")


def main(argv: list[str]) -> None:
    """Measure the frameworks and parts that are named, or both."""
    frameworks = [name for name in ("lightning", "paddle") if name in argv] or ["lightning", "paddle"]
    parts = [part for part in (evaluation, training) if part.__name__ in argv] or [evaluation, training]
    size, batch = ([int(word) for word in argv if word.isdigit()] + [640, 16])[:2]
    print("| framework | what | images a second in squares | in rectangles | ratio | pixels |")
    print("|---|---|---:|---:|---:|---:|")
    for framework in frameworks:
        keys = [f"framework={framework}", "task=detection", "data=coco128", f"data.image_size={size}"]
        keys += [f"data.batch_size={batch}", "data.num_workers=0", "trainer.accelerator=cpu", "tracker=none"]
        for measure in parts:
            print(
                f"| {framework} | {measure.__name__}, {size} pixels, {batch} images | {pair(measure, keys)} |",
                flush=True,
            )


def pair(measure: Callable[[Experiment], Callable[[], int]], keys: list[str]) -> str:
    """One row: both sides in turns."""
    experiments = [Experiment(load_config([*keys, f"data.rectangular={side}"])) for side in SIDES]
    passes = [measure(experiment) for experiment in experiments]
    split = "test" if measure is evaluation else "train"
    pixels = [sum(images[:, 0].size for images, *_ in each.build_loader(split)) for each in experiments]
    seconds: list[list[float]] = [[], []]
    for _ in range(PAIRS):
        for own, run in zip(seconds, passes, strict=True):
            start = time.process_time()
            count = run()
            own.append((time.process_time() - start) / count)
    rates = [f"{1 / statistics.median(own):.2f}" for own in seconds]
    ratios = sorted(square / own for square, own in zip(*seconds, strict=True))
    shown = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    return " | ".join([*rates, shown, f"{pixels[1] / pixels[0]:.0%}"])


def evaluation(experiment: Experiment) -> Callable[[], int]:
    """All of the test split: batches, the network and what the scores are made from."""
    backend = load_backend(experiment.cfg)
    network = backend.load_network(experiment, None)
    return lambda: len(backend.predict(experiment, network, "test"))


def training(experiment: Experiment) -> Callable[[], int]:
    """An epoch of bare steps: batches, forward and backward pass, optimizer."""
    trainer: Any = load_benchmark(experiment.cfg.framework).Trainer(experiment.cfg, experiment.split("train"))

    def epoch() -> int:
        for batch in trainer.real():
            trainer.step(batch)
        return len(experiment.split("train"))

    return epoch


if __name__ == "__main__":
    main(sys.argv[1:])

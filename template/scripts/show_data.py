"""Draw a batch as the network sees it: resized, augmented and labelled.

    python scripts/show_data.py                                  # the data set of src/configs/config.yaml
    python scripts/show_data.py data=image_folder data.root=photos data.augment=advanced
    python scripts/show_data.py --split val --out val.png

--split is train (shuffled and augmented, the default), val or test. --out defaults to data-<name>-<split>.png.
Any key of the configuration can be set: seed=1 shows other images, data.batch_size=8 shows eight.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.kit.errors import UserError, refuse_url, run_main

MAX_IMAGES = 16


def main(argv: list[str]) -> None:
    """Draw the first batch of a split and print the picture's path."""
    from src.kit.config import help_text, load_config, title_of

    if "--help" in argv or "-h" in argv:
        sys.stdout.write(f"{__doc__}\n{help_text(argv)}")
        return
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--split", choices=("train", "val", "test"), default="train")
    parser.add_argument("--out", type=Path)
    options, overrides = parser.parse_known_args(argv)
    cfg = load_config(overrides)
    from src.kit.catalog import build_dataset  # imports NumPy and Pillow: only if the keys are right
    from src.kit.loading import largest_batch

    path = options.out or Path(f"data-{title_of(cfg.data)}-{options.split}.png")
    refuse_url(path, "--out=")
    if path.suffix.lower() != ".png":
        raise UserError(f"--out={path} must end in .png.")
    dataset = build_dataset(cfg, options.split)
    cfg.data.batch_size = min(largest_batch(cfg), len(dataset))  # unlike training, accept fewer samples than a batch
    fitting_task(cfg, dataset).draw_batch(cfg, dataset, options.split, path, MAX_IMAGES)
    print(f"The first images of {title_of(cfg.data)}, {options.split} split: {path.resolve()}")


def fitting_task(cfg: Any, dataset: Any) -> Any:
    """The configured task, or else one that learns from such data: looking at a data set needs no `task=`."""
    from src.kit.config import option_names
    from src.kit.training import load_task

    tasks = [load_task(name) for name in (cfg.task, *option_names("task"))]
    return next((task for task in tasks if task.content == dataset.content), tasks[0])


if __name__ == "__main__":
    run_main(main)

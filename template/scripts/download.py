"""Fetch, verify and unpack the data set of the configuration:

    python scripts/download.py data=mnist
    python scripts/download.py data=cifar10 data.root=~/datasets/cifar10

An interrupted download continues where it stopped. On a machine behind a firewall set the environment variable
DATASET_MIRROR to a folder or a base URL that holds the publisher's files under their own names.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.utils.config import help_text, load_config
from src.utils.errors import run_main
from src.utils.registry import resolve


def main(argv: list[str]) -> None:
    """Download `cfg.data` and print where it is."""
    if "--help" in argv or "-h" in argv:
        sys.stdout.write(f"{__doc__}\n{help_text()}")
        return
    cfg = load_config(argv)
    from src.datasets import DATASETS  # NumPy and Pillow: not needed to say that a key is misspelt

    folder = resolve(DATASETS, cfg.data.name, "data set").download(cfg.data)
    if folder is None:
        print(f"{cfg.data.name} needs no download.")
    else:
        print(f"{cfg.data.name} is in {folder.resolve()}")


if __name__ == "__main__":
    run_main(main)

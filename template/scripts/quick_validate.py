"""Prove in minutes that everything runs: environment, data, loader, a short epoch of training, evaluation.

    python scripts/quick_validate.py                          # the data set of the debug stage
    python scripts/quick_validate.py --dataset mnist          # fetched if it is not there
    python scripts/quick_validate.py framework=paddle --json

Prints one table with the time and the peak memory after each step (less than 1 GB in the debug stage) and leaves with 1
when a step fails or a limit is passed. Keys of the configuration can be overridden, as in scripts/train.py.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.kit.benchmarks import main as check
from src.kit.config import run_main


def main(argv: list[str]) -> None:
    """Check the debug stage, unless another one is asked for."""
    check(argv, "debug", __doc__ or "")


if __name__ == "__main__":
    run_main(main)

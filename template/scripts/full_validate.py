"""Prove that the whole pipeline runs at full size: an epoch over all the data that this machine's GPUs can take.

    python scripts/full_validate.py                           # the data set of the production stage
    python scripts/full_validate.py --dataset imagenet model=resnet50
    python scripts/full_validate.py --stage debug --dataset digits

Prints one table with the time and the peak memory after each step and leaves with 1 when a step fails or a limit is
passed (30 minutes). Keys of the configuration can be overridden, as in scripts/train.py.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.kit.benchmarks import main as check
from src.kit.config import run_main


def main(argv: list[str]) -> None:
    """Check the production stage, unless another one is asked for."""
    check(argv, "production", __doc__ or "")


if __name__ == "__main__":
    run_main(main)

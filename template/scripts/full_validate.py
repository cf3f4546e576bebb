"""Check that the whole pipeline runs at full size: an epoch over all the data that this machine's GPUs can take.

    python scripts/full_validate.py                           # the data set of the production stage
    python scripts/full_validate.py --dataset imagenet model=resnet50
    python scripts/full_validate.py --stage debug --dataset digits

Prints a table with the time and peak memory of each step, and exits with 1 if a step fails or a limit (30 minutes) is
exceeded. Takes overrides of the configuration, as scripts/train.py does.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.kit.errors import run_main


def main(argv: list[str]) -> None:
    """Check the production stage, or the one that --stage names."""
    from src.kit.benchmarks import validate_pipeline

    validate_pipeline(argv, "production", __doc__ or "")


if __name__ == "__main__":
    run_main(main)

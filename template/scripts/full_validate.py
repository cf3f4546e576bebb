"""Check that the whole pipeline runs at full size: an epoch over all the data that this machine's GPUs can take.

    python scripts/full_validate.py                           # the data set of the production stage
    python scripts/full_validate.py --dataset imagenet model=resnet50
    python scripts/full_validate.py --stage debug --dataset digits

Prints a table with the time and peak memory of each step, and exits with 1 if a step fails or a limit (30 minutes) is
exceeded. Takes overrides of the configuration, as scripts/train.py does.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.kit.errors import run_main


def main(argv: list[str]) -> None:
    """Check the production stage, or the one that --stage names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", choices=("debug", "production"), default="production")
    parser.add_argument("--dataset", help="a data set of src/configs/data; default: the stage's own")
    parser.add_argument("--json", action="store_true", help="print one JSON object and no table")
    options, overrides = parser.parse_known_args(argv)
    from src.kit.benchmarks import validate_pipeline

    validate_pipeline(overrides, options.stage, options.dataset, options.json)


if __name__ == "__main__":
    run_main(main)

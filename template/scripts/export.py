"""Export a run's network to files that run without this project: ONNX, and the framework's own format.

    python scripts/export.py                         # the newest run, into RUN/export
    python scripts/export.py outputs/RUN --int8      # and INT8 with its scores, into RUN/export/int8
    python scripts/export.py outputs/RUN --format onnx --checkpoint last

`card.json` there describes classes, preprocessing, metrics and versions; `scripts/predict.py RUN/export PHOTOS` needs
ONNX Runtime, and no framework.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.kit.errors import run_main


def main(argv: list[str]) -> None:
    """Export `[RUN] [options]`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path, help="a run folder (default: the newest)")
    parser.add_argument("--format", default="", help="comma-separated, such as onnx (default: all of its framework)")
    parser.add_argument("--int8", action="store_true", help="also write INT8, calibrated on training samples")
    parser.add_argument("--checkpoint", default="best", help="best, last or a checkpoint's name")
    options = parser.parse_args(argv)
    from src.kit.training import export_command

    export_command(**vars(options))


if __name__ == "__main__":
    run_main(main)

"""Make a trained network smaller: remove channels or weights, train it on, and see what that gained.

    python scripts/compress.py outputs/RUN --channels 0.5               # half of the channels: smaller and faster
    python scripts/compress.py outputs/RUN --sparsity 0.8 --epochs 5    # zeros: a smaller file once it is zipped
    python scripts/compress.py outputs/RUN --pattern 2:4                # zeros as GPUs' sparse tensor cores take them
    python scripts/compress.py outputs/RUN --channels 0.5 optimizer.lr=1e-4 trainer.max_epochs=3

The result is a run like any other, which can be evaluated, resumed, exported and compressed again.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.kit.errors import run_main


def main(argv: list[str]) -> None:
    """Compress `[RUN] [key=value ...] [options]`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="RUN key=value", help="a run (default: the newest), and its keys")
    parser.add_argument("--channels", type=float, help="share of the channels to remove, such as 0.5")
    parser.add_argument("--sparsity", type=float, help="share of the weights to set to zero, such as 0.5")
    parser.add_argument("--pattern", choices=("2:4",), help="zeros as sparse tensor cores take them: 2 of every 4")
    parser.add_argument("--epochs", type=int, help="to train on (default: as many as the run was trained)")
    parser.add_argument("--checkpoint", default="best", help="best, last or a checkpoint's name")
    options = parser.parse_intermixed_args(argv)
    from src.kit.compression import compress_command

    compress_command(**vars(options))


if __name__ == "__main__":
    run_main(main)

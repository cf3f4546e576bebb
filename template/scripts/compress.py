"""Make a trained network smaller: remove channels or weights, train it on, and see what that gained.

    python scripts/compress.py outputs/RUN --channels 0.5               # half of the channels: smaller and faster
    python scripts/compress.py outputs/RUN --sparsity 0.8 --epochs 5    # zeros: a smaller file once it is zipped
    python scripts/compress.py outputs/RUN --pattern 2:4                # zeros as GPUs' sparse tensor cores take them
    python scripts/compress.py outputs/RUN --channels 0.5 optimizer.lr=1e-4 trainer.max_epochs=3

The result is a run like any other, which can be evaluated, resumed, exported and compressed again.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.kit.errors import run_main


def main(argv: list[str]) -> None:
    """Compress `[RUN] [key=value ...] [options]`."""
    from src.kit.compression import compress_command

    compress_command(argv, __doc__ or "")


if __name__ == "__main__":
    run_main(main)

"""Evaluate a trained run on the validation split.

python scripts/eval.py                                 # the newest run, its best checkpoint
python scripts/eval.py outputs/RUN checkpoint=last
python scripts/eval.py outputs/RUN data.batch_size=32  # any key of the run can be overridden
python scripts/eval.py outputs/RUN --tta                # several views of each image, written beside its own scores
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.kit.errors import run_main


def main(argv: list[str]) -> None:
    """Evaluate `[RUN] [checkpoint=best] [--tta] [key=value ...]`."""
    if "--help" in argv or "-h" in argv:
        sys.stdout.write(__doc__ or "")
        return
    from src.kit.training import evaluate_command

    evaluate_command(argv, "val")


if __name__ == "__main__":
    run_main(main)

"""Label new images or rows with a trained network:

    python scripts/predict.py outputs/RUN photos/                       # a folder; or files, patterns, a CSV, a video
    python scripts/predict.py outputs/RUN/export photos/ --out labelled # an exported network, without a framework
    python scripts/predict.py outputs/RUN1 outputs/RUN2 photos/ --tta   # several runs, and several views of each image

Everything goes to outputs/predictions-<time>: predictions.csv (file, class, score), predictions.json, pictures, and
index.html to look through. Without RUN, the newest run predicts.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.kit.errors import run_main


def main(argv: list[str]) -> None:
    """Predict, and print where the results are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", metavar="PATH", help="runs or exports, then what to predict")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="for the results")
    parser.add_argument("--batch", type=positive, default=32, metavar="N", help="samples computed at once (32)")
    parser.add_argument("--tta", action="store_true", help="predict mirrored or shifted images too, and average")
    tiles = "predict large images in tiles of SIDE pixels; auto: of the network's input size"
    parser.add_argument("--tile", type=side, metavar="SIDE", help=tiles)
    parser.add_argument("--score", type=share, metavar="S", help="least score of a reported object")
    parser.add_argument("--every", type=positive, default=1, metavar="N", help="take every Nth frame of a video (1)")
    parser.add_argument("--pictures", type=int, default=100, metavar="N", help="pictures to draw (100)")
    unsure = "copy the N images it is least sure of to label_next/CLASS/, to correct and to train on"
    parser.add_argument("--label-next", type=positive, metavar="N", help=unsure)
    if "--help" not in argv and "-h" not in argv:  # help needs no packages
        from src.kit.predictions import predict_command
    options = parser.parse_args(argv)
    folder = predict_command(options)
    print(f"predictions: {folder / 'predictions.csv'}\npage: {folder / 'index.html'}")
    if (folder / "label_next").is_dir():
        print(f"to label next: {folder / 'label_next'}")


def positive(text: str) -> int:
    """An integer above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be an integer above 0")
    return int(text)


def side(text: str) -> int:
    """An integer above 0, or 0 for "auto"."""
    return 0 if text == "auto" else positive(text)


def share(text: str) -> float:
    """A number from 0 to 1."""
    try:
        number = float(text)
    except ValueError:
        number = -1
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number from 0 to 1")
    return number


if __name__ == "__main__":
    run_main(main)

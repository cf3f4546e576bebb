"""Make a network smaller and faster, measured on this machine and gated by its score.

    python scripts/optimize_for_edge.py                              # the newest run, for this machine's processor
    python scripts/optimize_for_edge.py outputs/RUN --batch-size 1,8
    python scripts/optimize_for_edge.py --target-device jetson-nano --model-path models/resnet18.onnx \\
        --quantization int8 --input-size 224x224 --batch-size 1

Tries ONNX Runtime and OpenVINO (pip install -r requirements-edge.txt) in float32, bf16 and INT8 on one and on all
cores, and writes the fastest that keeps the score. For a Jetson it writes the network and a script that builds the
TensorRT engine there.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.kit.errors import refuse_url, run_main

DEVICES = ("cpu", "jetson-nano", "jetson-orin")


def main(argv: list[str]) -> None:
    """Optimize `[RUN] [options]`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path, help="a run folder (default: the newest, without --model-path)")
    parser.add_argument("--model-path", type=Path, help="an .onnx file that scripts/export.py wrote")
    parser.add_argument("--target-device", choices=DEVICES, default="cpu", help="cpu: this machine, measured")
    parser.add_argument("--quantization", choices=("int8", "none"), default="int8")
    parser.add_argument("--input-size", help="HEIGHTxWIDTH, such as 320x320 (default: as trained)")
    parser.add_argument("--batch-size", default="1", help="such as 1, or 1,8 to try both")
    parser.add_argument("--calibration", type=Path, help="a folder of images (default: the run's training images)")
    parser.add_argument("--max-loss", type=float, default=0.01, help="of the score, for INT8 and bf16 (default: 0.01)")
    parser.add_argument("--output", type=Path, help="folder to write (default: beside the model)")
    options = parser.parse_args(argv)
    for name in ("run", "model_path", "calibration", "output"):
        refuse_url(getattr(options, name) or "")
    from src.kit.edge_search import optimize_command

    optimize_command(**vars(options))


if __name__ == "__main__":
    run_main(main)

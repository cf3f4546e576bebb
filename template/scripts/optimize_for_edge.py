"""Make a network smaller and faster, measured on this machine and gated by its score.

    python scripts/optimize_for_edge.py                              # the newest run, for this machine's processor
    python scripts/optimize_for_edge.py outputs/RUN --batch-size 1,8
    python scripts/optimize_for_edge.py --target-device jetson-nano --model-path models/resnet18.onnx \\
        --quantization int8 --input-size 224x224 --batch-size 1

Tries ONNX Runtime and OpenVINO (pip install -r requirements-edge.txt) in float32, bf16 and INT8 on one and on all
cores, and writes the fastest that keeps the score. For a Jetson it writes the network and a script that builds the
TensorRT engine there.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.kit.errors import run_main


def main(argv: list[str]) -> None:
    """Optimize `[RUN] [options]`."""
    from src.kit.edge_search import optimize_command

    optimize_command(argv, __doc__ or "")


if __name__ == "__main__":
    run_main(main)

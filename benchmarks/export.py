"""Every network of one framework exported to ONNX and compared with the framework, for batches of 1, 2 and 5.

python benchmarks/export.py lightning    # in the folder of a generated project; or paddle

Weights are random but lively, so that outputs differ between images. Prints a Markdown row a network: nodes, size, and
the largest difference, of detections that of the sorted scores.
"""

import logging
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path.cwd()), str(Path(__file__).resolve().parents[1] / "internals")]
warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)

import numpy as np  # noqa: E402
import onnx  # noqa: E402

from exporting import DETECTORS, Exported, build, inputs, liven  # noqa: E402
from src.kit.config import load_config  # noqa: E402
from src.kit.training import load_backend  # noqa: E402
from tests.support import models  # noqa: E402


def main(framework: str) -> None:
    """Print one row for each network."""
    backend: Any = load_backend(load_config([f"framework={framework}"]))
    for name, config in models(framework).items():
        if "cardinalities" in config or name == "trees":
            continue
        with tempfile.TemporaryDirectory() as folder:
            network = build(framework, name)
            backend.weights_from_numpy(network, liven(backend.weights_to_numpy(network)))
            exported = Exported(framework, network, name, Path(folder))
            differences = []
            for batch in (1, 2, 5):
                images = inputs(name, batch)
                pair = [np.asarray(each) for each in (backend.predict_images(network, images), exported(images))]
                one, other = (np.sort(each[..., 4]) if name.startswith(DETECTORS) else each for each in pair)
                differences.append(float(np.abs(one - other).max()))
            nodes = sum(len(onnx.load(path).graph.node) for path in Path(folder).glob("*.onnx"))
            size = sum(path.stat().st_size for path in Path(folder).glob("*.onnx")) / 1e6
            print(f"| {framework} | {name} | {nodes} | {size:.1f} | {max(differences):.1e} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])

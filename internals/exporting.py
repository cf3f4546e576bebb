"""Exports of networks in any framework; test_export_*.py run them."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from src.kit.inference_scenes_detectors import detect
from src.kit.training.exports import export_network
from src.kit.training.networks import build_model
from tests.support import model_config

# name -> channels, image size, further arguments of `build`, changed keys: one of each kind, as small as it can be
NETWORKS: dict[str, tuple[int, int, dict[str, Any], dict[str, Any]]] = {
    "small_cnn": (1, 28, {}, {}),
    "resnet18_attention": (3, 32, {}, {"heads": 2}),
    "efficientnet": (3, 32, {}, {}),
    "speed_net": (3, 16, {}, {"width": 8}),
    "vit": (3, 32, {}, {}),
    "tabular_mlp": (6, 1, {"cardinalities": [4, 5], "knots": [[-1.0, 0.0, 0.5], [], [-0.5, 0.5, 2.0], []]}, {}),
    "deeplab_mobilenet_v2": (3, 48, {}, {"width": 16}),
    "yolov10n": (3, 64, {}, {}),
    "mask_rcnn_resnet18": (3, 64, {}, {"width": 16, "proposals": 32}),
    "retinanet_resnet18": (3, 64, {}, {}),
}
CLASSES = 4
DETECTORS = ("yolo", "retina", "mask")  # how names of networks begin whose outputs are rows of detections


def build(framework: str, name: str) -> Any:
    """The network, in evaluation mode."""
    channels, size, arguments, keys = NETWORKS.get(name, (3, 64, {}, {}))
    network = build_model(model_config(framework, name, **keys), CLASSES, channels, size, **arguments)
    network.eval()
    return network


def liven(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Redraw weights by fan-in and disturb the statistics, so that outputs stay near 1 and differ between inputs."""
    generator, lively = np.random.default_rng(0), {}
    for name, array in arrays.items():
        noise = generator.standard_normal(array.shape, dtype=np.float32)
        if name.endswith("cls_logits.bias"):  # RetinaNet's prior, by which it would find next to nothing
            lively[name] = np.zeros_like(array)
        elif name.endswith(("running_var", "_variance")):
            lively[name] = 1 + 0.1 * np.abs(noise)
        elif array.ndim > 1:
            lively[name] = noise / np.sqrt(np.prod(array.shape[1:], dtype=np.float32))
        else:
            lively[name] = array + 0.1 * noise.astype(array.dtype) if array.dtype == np.float32 else array
    return lively


def inputs(name: str, batch: int) -> np.ndarray:
    """Images or rows, float32 (B, C, H, W)."""
    channels, size, arguments, _ = NETWORKS.get(name, (3, 64, {}, {}))
    generator = np.random.default_rng(batch)
    values = generator.standard_normal((batch, channels, size, size), dtype=np.float32)
    for place, count in enumerate(reversed(arguments.get("cardinalities", ())), 1):
        values[:, -place] = generator.integers(0, count, values[:, -place].shape)
    return values


class Exported:
    """The ONNX files of an export, run as `Predictor` does."""

    def __init__(self, framework: str, network: Any, name: str, folder: Path) -> None:
        channels, size, _, _ = NETWORKS.get(name, (3, 64, {}, {}))
        folder.mkdir(exist_ok=True)
        self.detector = export_network(network, framework, (channels, size, size), folder)
        self.sessions = {path.stem: onnxruntime.InferenceSession(path) for path in folder.glob("*.onnx")}

    def __call__(self, images: np.ndarray) -> np.ndarray:
        if self.detector:
            return detect(lambda part, arrays: self.sessions[part].run(None, dict(arrays)), images, self.detector)
        return self.sessions["model"].run(None, {"input": images})[0]


def agree(one: np.ndarray, other: np.ndarray, name: str, tolerance: float = 1e-4) -> None:
    """Compare outputs; the rows of detections as sets, since equal scores may change their order."""
    assert one.shape == other.shape
    assert one.std() > 0.01
    if not name.startswith(DETECTORS):
        np.testing.assert_allclose(one, other, atol=tolerance, rtol=tolerance)
        return
    for rows, others in zip(one, other, strict=True):
        sure = rows[:, 4] > 0
        assert sure.sum() == (others[:, 4] > 0).sum() > 3
        distances = np.abs(rows[sure][:, None, :6] - others[None, others[:, 4] > 0][..., :6])
        nearest = (distances / (1, 1, 1, 1, 0.1, 1)).max(axis=2).argmin(axis=1)
        assert len(set(nearest)) == sure.sum()
        np.testing.assert_allclose(rows[sure], others[others[:, 4] > 0][nearest], atol=10 * tolerance, rtol=1e-3)
        np.testing.assert_allclose(np.sort(rows[:, 4]), np.sort(others[:, 4]), atol=tolerance)

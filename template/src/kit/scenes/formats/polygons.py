"""Outlines as the one ring of points that YOLO's format has room for."""

from collections.abc import Mapping

import numpy as np

from src.kit.scenes.outlines import Outline, extent, rasterise


def one_ring(outline: Outline, height: int, width: int) -> np.ndarray:
    """One ring (P, 2) around everything: parts are joined by a line that runs there and back, holes are filled."""
    rings = trace(rasterise(outline, height, width)) if isinstance(outline, Mapping) else list(outline)
    if not rings:
        return np.empty((0, 2), np.float32)
    joined = rings[0]
    for ring in rings[1:]:
        distances = np.linalg.norm(joined[:, None] - ring[None], axis=2)
        here, there = np.unravel_index(distances.argmin(), distances.shape)
        around = np.concatenate([ring[there:], ring[: there + 1]])
        joined = np.concatenate([joined[: here + 1], around, joined[here:]])
    return joined


def trace(mask: np.ndarray) -> list[np.ndarray]:
    """The outer edges of a mask bool (H, W) as rings float32 (P, 2), to within a sixth of a pixel."""
    import cv2

    if not mask.any():
        return []
    rows, columns = extent(mask)
    # OpenCV gives the middles of the outermost pixels: of pixels a third as large they are close to the edge
    large = np.kron(mask[rows, columns], np.ones((3, 3), np.uint8))
    found, _ = cv2.findContours(large, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    corner = np.array([columns.start, rows.start], np.float32)
    return [(ring.reshape(-1, 2).astype(np.float32) + 0.5) / 3 + corner for ring in found if len(ring) > 2]

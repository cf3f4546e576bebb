"""What detection, semantic and instance segmentation share: batches of annotated images and their pictures."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from omegaconf import DictConfig

from src.kit.config import UserError
from src.kit.report import describe_batch
from src.kit.scenes.loader import SceneLoader, build_scene_loader
from src.kit.scenes.samples import IGNORE, Sample, Scenes
from src.kit.scenes.scores import CROWD, OBJECT
from src.kit.training import BaseTask

# Of an image. Batches are padded to their fullest image, and among 16 photos of COCO that has 22 in the median and 40
# in one batch of ten.
OBJECTS = 32
FEWER_OBJECTS = {"digit_scenes": 6}
BOX_SHARE = 0.8  # a box's part of its cell's side, so that boxes never touch


class SceneShape(Protocol):
    """What the targets depend on."""

    @property
    def classes(self) -> int: ...
    @property
    def image_size(self) -> int: ...
    @property
    def objects(self) -> int: ...


def example_objects(cfg: DictConfig) -> int:
    """How many objects an image of `cfg.data` is assumed to have."""
    return FEWER_OBJECTS.get(cfg.data.name, OBJECTS)


def example_targets_boxes(shape: SceneShape, batch: int) -> tuple[np.ndarray, ...]:
    """Labels int64 (N, M), boxes float32 (N, M, 4) as x1, y1, x2, y2 in pixels, and kinds uint8 (N, M)."""
    boxes = grid_boxes(shape.objects, shape.image_size)
    labels = np.arange(len(boxes)) % shape.classes
    return repeat_rows((labels, boxes, np.full(len(boxes), OBJECT, np.uint8)), batch)


def example_targets_masks(shape: SceneShape, batch: int) -> tuple[np.ndarray, ...]:
    """The arrays of `example_targets_boxes`, and masks uint8 (N, M, H, W) that fill the boxes."""
    boxes, size = grid_boxes(shape.objects, shape.image_size), shape.image_size
    masks = np.zeros((len(boxes), size, size), np.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes.round().astype(int), strict=True):
        mask[top:bottom, left:right] = 1
    return (*example_targets_boxes(shape, batch), *repeat_rows((masks,), batch))


def example_targets_class_map(shape: SceneShape, batch: int) -> tuple[np.ndarray, ...]:
    """Class maps uint8 (N, H, W) in which every class occurs and every pixel counts."""
    size = shape.image_size
    return (np.broadcast_to(np.arange(size) % shape.classes, (batch, size, size)).astype(np.uint8),)


def grid_boxes(count: int, size: int) -> np.ndarray:
    """Boxes float32 (count, 4) of equal size on a grid that fills an image of `size` pixels a side."""
    side = math.ceil(math.sqrt(count))
    row, column = np.divmod(np.arange(count), side)
    centre = (np.stack([column, row], axis=1) + 0.5) * size / side
    half = BOX_SHARE * size / side / 2
    return np.concatenate([centre - half, centre + half], axis=1).astype(np.float32)


def repeat_rows(arrays: tuple[np.ndarray, ...], batch: int) -> tuple[np.ndarray, ...]:
    """Each array `batch` times along a new first axis."""
    return tuple(np.stack([array] * batch) for array in arrays)


LEAST_SCORE = 0.25  # of a predicted object that is worth showing


class SceneTask(BaseTask):
    """A task that learns from images with boxes, outlines or class maps."""

    content = Scenes.content

    def input_shape(self, cfg: DictConfig, dataset: Scenes) -> tuple[int, int, int]:
        return cfg.data.image_size, cfg.data.image_size, 3

    def build_loader(
        self, cfg: DictConfig, dataset: Scenes, kind: str, rank: int = 0, world_size: int = 1
    ) -> SceneLoader:
        return build_scene_loader(cfg, dataset, kind, rank, world_size, self.targets)

    @abstractmethod
    def targets(self, samples: Sequence[Sample]) -> tuple[np.ndarray, ...]:
        """A batch's targets as arrays whose first dimension is the batch."""

    def require_outlines(self, cfg: DictConfig, dataset: Scenes, fits: bool) -> None:
        """Refuse data without what segmentation needs.

        Raises:
            UserError: `fits` is false.
        """
        if not fits:
            raise UserError(
                f"task={cfg.task} needs an outline for every object, and data={cfg.data.name} has only boxes for some "
                "or all: choose another data set or task=detection."
            )

    def predictions(self, outputs: np.ndarray, names: Sequence[str]) -> list[Any]:
        """For each image its objects {"class", "score", "box"}, best first; a box is x1, y1, x2, y2 in pixels."""
        return [
            [
                {"class": names[int(row[5])], "score": float(row[4]), "box": [float(edge) for edge in row[:4]]}
                for row in sorted(rows, key=lambda row: -row[4])
                if row[4] >= LEAST_SCORE
            ]
            for rows in outputs
        ]

    def draw_batch(self, cfg: DictConfig, dataset: Scenes, split: str, path: Path, count: int) -> Path:
        from src.kit.scenes.drawing import draw_scenes

        batch: Any = next(iter(build_scene_loader(cfg, dataset, split)))
        return draw_scenes(batch[1][:count], dataset.classes, describe_batch(cfg, split), path)

    def example_targets(self, shape: Any, batch: int) -> tuple[np.ndarray, ...]:
        return example_targets_boxes(shape, batch)

    def example_objects(self, cfg: DictConfig) -> int:
        return example_objects(cfg)


def pad_objects(samples: Sequence[Sample]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A batch's objects, padded to M: labels int64 (B, M), boxes float32 (B, M, 4) as x1, y1, x2, y2 in pixels, and
    kinds uint8 (B, M): 1 for an object, 2 for a crowd, 0 for padding."""
    most = max((len(sample.labels) for sample in samples), default=0)
    labels = np.zeros((len(samples), most), np.int64)
    boxes = np.zeros((len(samples), most, 4), np.float32)
    kinds = np.zeros((len(samples), most), np.uint8)
    for row, sample in enumerate(samples):
        count = len(sample.labels)
        labels[row, :count], boxes[row, :count] = sample.labels, sample.boxes
        kinds[row, :count] = np.where(sample.crowd, CROWD, OBJECT)
    return labels, boxes, kinds


def class_map(sample: Sample) -> np.ndarray:
    """The sample's class map, or one drawn from its outlines, large objects first: uint8 (H, W)."""
    if sample.semantic is not None:
        return sample.semantic
    assert sample.masks is not None, "a data set for segmentation has outlines or class maps"
    drawn = np.zeros(sample.image.shape[:2], np.uint8)
    for k in np.argsort(-sample.masks.sum(axis=(1, 2))):
        drawn[sample.masks[k]] = IGNORE if sample.crowd[k] else sample.labels[k] + 1
    return drawn

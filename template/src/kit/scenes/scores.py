"""The objects of an image, predicted or true, and COCO's average precision of them.

pycocotools counts it: https://cocodataset.org/#detection-eval."""

import contextlib
import io
import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from omegaconf import DictConfig

from src.kit.config import UserError
from src.kit.report import describe_batch
from src.kit.scenes.annotations import shown_size
from src.kit.scenes.loader import SceneLoader, build_scene_loader, choose_mix, is_rectangular
from src.kit.scenes.samples import Sample, Scenes
from src.kit.training import BaseTask, check_outputs

OBJECT, CROWD = 1, 2  # kinds in the padded arrays of a batch; 0 is padding
# score -> its index in pycocotools' `stats`
SCORES = {"map": 0, "map50": 1, "map75": 2, "map_small": 3, "map_medium": 4, "map_large": 5, "recall100": 8}
SIZES = ("map_small", "map_medium", "map_large")
DETECTIONS = 100  # of an image and class, at most, that count
# Of an image. Batches are padded to their fullest image, and among 16 photos of COCO that has 22 in the median and 40
# in one batch of ten.
OBJECTS = 32
FEWER_OBJECTS = {"digit_scenes": 6}
BOX_SHARE = 0.8  # a box's part of its cell's side, so that boxes never touch
SHOWN_SCORE = 0.25  # of a predicted object that is worth showing


@dataclass(frozen=True)
class Objects:
    """M objects of an image, small enough to keep those of a whole split; true ones have the score 1."""

    boxes: np.ndarray  # float32 (M, 4): x1, y1, x2, y2 in pixels
    labels: np.ndarray  # int64 (M,)
    scores: np.ndarray  # float32 (M,), 0 to 1
    crowd: np.ndarray  # bool (M,): a region of many objects, where no prediction counts as wrong
    outlines: list[dict[str, Any]] | None = None  # COCO's run-length encoding of each mask

    def __len__(self) -> int:
        return len(self.labels)


def check_heads(outputs: Any, levels: int, beside: int, classes: int | None) -> None:
    """Compare what a network returns in training with two heads, each of `levels` maps (B, beside + classes, H, W).

    Raises:
        UserError: it is something else.
    """
    rows = (list, tuple)
    heads = outputs if isinstance(outputs, rows) and len(outputs) == 2 else [None]
    if not all(isinstance(head, rows) and len(head) == levels for head in heads):
        raise UserError(
            f"The loss takes two heads from the network in training, each a list of {levels} maps: return them, or "
            "choose loss=network, for a network that returns its losses."
        )
    for level in (level for head in outputs for level in head):
        check_outputs(level, classes, None, None, beside=beside)


def true_objects(labels: np.ndarray, boxes: np.ndarray, kinds: np.ndarray, masks: np.ndarray | None = None) -> Objects:
    """Make the true objects of an image from its rows of a batch's padded arrays."""
    real = kinds > 0
    outlines = None if masks is None else encode(masks[real])
    return Objects(boxes[real], labels[real], np.ones(real.sum(), np.float32), kinds[real] == CROWD, outlines)


def predicted_objects(rows: np.ndarray, outlines: list[dict[str, Any]] | None = None) -> Objects:
    """Make predicted objects from float32 (M, 6): x1, y1, x2, y2, score, class number."""
    return Objects(rows[:, :4], rows[:, 5].astype(np.int64), rows[:, 4], np.zeros(len(rows), bool), outlines)


def encode(masks: np.ndarray) -> list[dict[str, Any]]:
    """Run-length encode masks (M, H, W) of bool or of 0 and 1."""
    from pycocotools.mask import encode as to_runs

    return list(to_runs(np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8)))) if len(masks) else []


def coco_scores(
    kept: Sequence[tuple[Objects, Objects]],
    classes: Sequence[str],
    kind: Literal["bbox", "segm"],
    areas: Sequence[tuple[np.ndarray, np.ndarray]] | None = None,
    counter: Any = None,
) -> dict[str, Any]:
    """Compare the predictions for N images with the truth, by boxes ("bbox") or by masks ("segm").

    Args:
        areas: of the predicted and of the true objects of each image, which tell small from large; None takes those of
            boxes or masks in pixels of the network's input.
        counter: what `count_matches` returned for them, if it has counted already.

    Returns:
        map (the mean over overlaps from 0.5 to 0.95), map50, map75, map_small, map_medium, map_large (areas below
        32^2, below 96^2 and above), recall100, and `per_class` with map, map50 and the number of objects. The 100 best
        predictions of an image and class count. Sizes and classes without true objects have None; without any true
        object, the other scores are 0.
    """
    true = [real for _, real in kept]
    counter = counter or count_matches(kept, classes, kind, areas)
    precision = counter.eval["precision"][:, :, :, 0, 2]  # (overlaps, recalls, classes) of all areas, 100 detections
    objects = np.bincount(np.concatenate([each.labels[~each.crowd] for each in true]), minlength=len(classes))
    result: dict[str, Any] = {name: max(0.0, float(counter.stats[index])) for name, index in SCORES.items()}
    result |= {name: None for name in SIZES if counter.stats[SCORES[name]] < 0}
    result["per_class"] = [
        {
            "class": name,
            "map": mean_precision(precision[..., k]),
            "map50": mean_precision(precision[0, :, k]),
            "objects": int(objects[k]),
        }
        for k, name in enumerate(classes)
    ]
    return result


def count_matches(
    kept: Sequence[tuple[Objects, Objects]],
    classes: Sequence[str],
    kind: str,
    areas: Sequence[tuple[np.ndarray, np.ndarray]] | None = None,
) -> Any:
    """Run pycocotools' COCOeval on objects in memory."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    # pycocotools asks for the size of every image, though run-length codes have their own
    images = [{"id": number, "height": 0, "width": 0} for number in range(len(kept))]
    categories = [{"id": number, "name": name} for number, name in enumerate(classes)]
    sizes = areas or [(measure(found, kind), measure(real, kind)) for found, real in kept]
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        sides = []
        for objects, own in zip(zip(*kept, strict=True), zip(*sizes, strict=True), strict=True):
            side = COCO()
            rows = list(to_annotations(objects, kind, own))
            side.dataset = {"images": images, "categories": categories, "annotations": rows}
            side.createIndex()
            sides.append(side)
        detections, truth = sides
        counter = COCOeval(truth, detections, kind)
        counter.evaluate()
        counter.accumulate()
        counter.summarize()
    return counter


def mean_precision(precision: np.ndarray) -> float | None:
    """The mean of the precisions; -1 stands for a class without objects and is left out."""
    return float(precision[precision > -1].mean()) if (precision > -1).any() else None


def original_areas(
    kept: Sequence[tuple[Objects, Objects]], dataset: Scenes, image_size: int, kind: str
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The areas of the predicted and of the true objects of each image, in pixels of the original image.

    True objects have the areas in the annotation file, as in COCO's own scores, if it gives any.
    """
    found = []
    for index, pair in enumerate(kept):
        record = dataset.record(index)
        scale = (max(record.size or shown_size(record.path)) / image_size) ** 2
        predicted, true = (measure(objects, kind) * scale for objects in pair)
        if len(record.areas) == len(true):
            true = np.where(np.isnan(record.areas), true, record.areas)
        found.append((predicted, true))
    return found


def measure(objects: Objects, kind: str) -> np.ndarray:
    """The areas float64 (M,) of boxes ("bbox") or masks ("segm") in pixels."""
    if kind == "segm":
        from pycocotools.mask import area

        assert objects.outlines is not None, "masks are compared, so there must be some"
        return np.array([area(outline) for outline in objects.outlines], np.float64)
    sides: np.ndarray = objects.boxes[:, 2:].astype(np.float64) - objects.boxes[:, :2]
    return np.asarray(sides.prod(axis=1))


def to_annotations(images: Sequence[Objects], kind: str, areas: Sequence[np.ndarray]) -> Iterator[dict[str, Any]]:
    """COCO's annotations, numbered from 1: pycocotools takes 0 for "no match"."""
    number = 0
    for image, (objects, sizes) in enumerate(zip(images, areas, strict=True)):
        for k in range(len(objects)):
            number += 1
            x1, y1, x2, y2 = (float(value) for value in objects.boxes[k])
            row = {
                "id": number,
                "image_id": image,
                "category_id": int(objects.labels[k]),
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": float(sizes[k]),
                "iscrowd": int(objects.crowd[k]),
                "score": float(objects.scores[k]),
            }
            if objects.outlines is not None and kind == "segm":
                row["segmentation"] = objects.outlines[k]
            yield row


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


class SceneTask(BaseTask):
    """A task that learns from images with boxes, outlines or class maps."""

    content = Scenes.content
    output: ClassVar[Mapping[str, Any]]  # of the card, see `src/kit/inference_scenes.py`

    def check(self, cfg: DictConfig, dataset: Scenes) -> None:
        """Refuse combinations of images that the data do not allow."""
        choose_mix(cfg, self.view(dataset))

    def input_shape(self, cfg: DictConfig, dataset: Scenes) -> tuple[int, int, int]:
        return cfg.data.image_size, cfg.data.image_size, dataset.channels

    def build_loader(
        self, cfg: DictConfig, dataset: Scenes, kind: str, rank: int = 0, world_size: int = 1
    ) -> SceneLoader:
        return build_scene_loader(cfg, self.view(dataset), kind, rank, world_size, self.targets)

    def in_order(self, cfg: DictConfig, dataset: Scenes) -> Scenes:
        return dataset.by_shape() if is_rectangular(cfg) else dataset

    def view(self, dataset: Scenes) -> Scenes:
        """The data set as this task reads it."""
        return dataset

    @abstractmethod
    def targets(self, samples: Sequence[Sample]) -> tuple[np.ndarray, ...]:
        """A batch's targets as arrays whose first dimension is the batch."""

    def sizes_of_originals(
        self,
        cfg: DictConfig,
        collected: Sequence[Any],
        names: Sequence[str],
        dataset: Scenes,
        kind: Literal["bbox", "segm"],
    ) -> dict[str, Any]:
        """map_small, map_medium and map_large with sizes in pixels of the original images, as COCO states them."""
        scores = coco_scores(collected, names, kind, original_areas(collected, dataset, cfg.data.image_size, kind))
        return {f"{name}_original": scores[name] for name in SIZES}

    def note(self, cfg: DictConfig) -> str:
        """What the names of scores leave open."""
        side = cfg.data.image_size
        return (
            "small, medium and large (areas below 32 x 32, below 96 x 96, above) in pixels of the network's input of "
            f"{side} x {side}; with _original in pixels of the photos, as COCO's own; the {DETECTIONS} best detections "
            "of an image and class count"
        )

    def require_boxes(self, cfg: DictConfig, dataset: Scenes) -> None:
        """Refuse class maps without objects.

        Raises:
            UserError: there are no objects, but class maps.
        """
        if dataset.annotations.only_maps:
            raise UserError(
                f"task={cfg.task} needs a box for every object, and data={cfg.data.name} has class maps only: choose "
                "another data set or task=segmentation."
            )

    def require_outlines(self, cfg: DictConfig, dataset: Scenes, fits: bool) -> None:
        """Refuse data without what segmentation needs.

        Raises:
            UserError: `fits` is false.
        """
        if not fits:
            first = dataset.annotations.without_outline
            raise UserError(
                f"task={cfg.task} needs an outline for every object, and data={cfg.data.name} has only boxes for some "
                f"or all{f', such as {first}' if first else ''}: choose another data set or task=detection."
            )

    def describe(self, cfg: DictConfig, dataset: Scenes) -> dict[str, Any]:
        size = cfg.data.image_size
        described: dict[str, Any] = {"shape": [dataset.channels, size, size], "flippable": dataset.flippable}
        described |= {"mean": list(cfg.data.mean), "std": list(cfg.data.std), "pixels": dataset.reading}
        described |= {"rectangular": True} if is_rectangular(cfg) else {}
        chosen = {} if self.threshold is None else {"score": self.threshold}
        return {"kind": "scenes", "input": described, "output": {**self.output, **chosen}}

    def draw_batch(self, cfg: DictConfig, dataset: Scenes, split: str, path: Path, count: int) -> Path:
        from src.kit.scenes.drawing import draw_scenes, with_class_map

        batch: Any = next(iter(build_scene_loader(cfg, self.view(dataset), split)))
        samples = [
            sample if sample.semantic is None else with_class_map(sample, sample.semantic, dataset)
            for sample in batch[1][:count]
        ]
        return draw_scenes(samples, dataset.classes, describe_batch(cfg, split), path)

    def example_targets(self, shape: Any, batch: int) -> tuple[np.ndarray, ...]:
        return example_targets_boxes(shape, batch)

    def example_objects(self, cfg: DictConfig) -> int:
        return example_objects(cfg) * (2 if cfg.data.get("mosaic") or cfg.data.get("mixup") else 1)


def pad_objects(samples: Sequence[Sample]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A batch's objects, padded to M.

    Labels int64 (B, M), boxes float32 (B, M, 4) as x1, y1, x2, y2 in pixels, and kinds uint8 (B, M): 1 for an object,
    2 for a crowd, 0 for padding.
    """
    most = max((len(sample.labels) for sample in samples), default=0)
    labels = np.zeros((len(samples), most), np.int64)
    boxes = np.zeros((len(samples), most, 4), np.float32)
    kinds = np.zeros((len(samples), most), np.uint8)
    for row, sample in enumerate(samples):
        count = len(sample.labels)
        labels[row, :count], boxes[row, :count] = sample.labels, sample.boxes
        kinds[row, :count] = np.where(sample.crowd, CROWD, OBJECT)
    return labels, boxes, kinds

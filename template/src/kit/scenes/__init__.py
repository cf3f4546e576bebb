"""Images with boxes, outlines and class maps: formats, samples, batches, scores, pictures."""

from src.kit.scenes.coco_classes import COCO_CLASSES
from src.kit.scenes.coco_scores import coco_scores
from src.kit.scenes.compose import Scene, compose
from src.kit.scenes.draw_predictions import boxes_only, draw_class_maps, draw_objects, draw_truth, with_class_map
from src.kit.scenes.draw_scenes import draw_scenes
from src.kit.scenes.examples import example_targets_class_map, example_targets_masks
from src.kit.scenes.formats import coco, yolo
from src.kit.scenes.formats.coco_layout import find_coco_splits
from src.kit.scenes.formats.convert import convert
from src.kit.scenes.formats.json_stream import stream
from src.kit.scenes.formats.layout import list_images
from src.kit.scenes.formats.polygons import trace
from src.kit.scenes.formats.yolo import find_yolo_splits, read_classes
from src.kit.scenes.mini_scenes import coco_parts, is_coco, is_yolo, yolo_parts
from src.kit.scenes.objects import CROWD, OBJECT, Objects, encode, predicted_objects, true_objects
from src.kit.scenes.outlines import extent
from src.kit.scenes.samples import IGNORE, Sample, Scenes
from src.kit.scenes.scene_batches import build_scene_loader
from src.kit.scenes.scene_loader import SceneLoader
from src.kit.scenes.scene_splits import choose
from src.kit.scenes.task import SceneTask, class_map, pad_objects

__all__ = [
    "COCO_CLASSES",
    "CROWD",
    "IGNORE",
    "OBJECT",
    "Objects",
    "Sample",
    "Scene",
    "SceneLoader",
    "SceneTask",
    "Scenes",
    "boxes_only",
    "build_scene_loader",
    "choose",
    "class_map",
    "coco",
    "coco_parts",
    "coco_scores",
    "compose",
    "convert",
    "draw_class_maps",
    "draw_objects",
    "draw_scenes",
    "draw_truth",
    "encode",
    "example_targets_class_map",
    "example_targets_masks",
    "extent",
    "find_coco_splits",
    "find_yolo_splits",
    "is_coco",
    "is_yolo",
    "list_images",
    "pad_objects",
    "predicted_objects",
    "read_classes",
    "stream",
    "trace",
    "true_objects",
    "with_class_map",
    "yolo",
    "yolo_parts",
]

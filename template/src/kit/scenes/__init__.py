"""Images with boxes, outlines and class maps: annotation formats, samples, batches, scores and pictures."""

from src.kit.scenes.annotations import extent
from src.kit.scenes.coco_format import COCO_CLASSES, find_coco_splits, is_coco, read_coco
from src.kit.scenes.convert import convert_data_set
from src.kit.scenes.digit_images import Scene, compose_scene
from src.kit.scenes.drawing import boxes_only, draw_class_maps, draw_objects, draw_scenes, draw_truth, with_class_map
from src.kit.scenes.format_files import stream
from src.kit.scenes.loader import SceneLoader, build_scene_loader
from src.kit.scenes.samples import IGNORE, Sample, Scenes, choose_scenes
from src.kit.scenes.scores import (
    CROWD,
    OBJECT,
    Objects,
    SceneTask,
    class_map,
    coco_scores,
    encode,
    example_targets_class_map,
    example_targets_masks,
    pad_objects,
    predicted_objects,
    true_objects,
)
from src.kit.scenes.yolo_format import find_yolo_splits, is_yolo, read_classes, read_yolo, trace

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
    "choose_scenes",
    "class_map",
    "coco_scores",
    "compose_scene",
    "convert_data_set",
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
    "pad_objects",
    "predicted_objects",
    "read_classes",
    "read_coco",
    "read_yolo",
    "stream",
    "trace",
    "true_objects",
    "with_class_map",
]

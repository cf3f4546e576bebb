"""What must hold for detection and segmentation in every framework; test_scene_training_*.py run it in theirs."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scripts.eval import main as evaluate
from scripts.predict import main as predict
from scripts.train import main
from src.datasets.scenes import digit_scenes
from src.kit.config.compose import load_config
from src.kit.errors import UserError
from src.kit.inference import Predictor
from src.kit.run import Run, read_json, read_rows
from src.kit.training import (
    Experiment,
    TrainingLoop,
    evaluate_run,
    find_card,
    find_checkpoint,
    list_ids,
    load_backend,
    load_experiment,
    load_task,
    train_run,
)
from src.kit.training.exports import build_loader
from src.kit.weights import load_weights
from tests.support import fit

SCENE_TASKS = ("detection", "segmentation", "instance_segmentation")
FEW = {"train": 16, "val": 6, "test": 6}
TINY = [
    "data.image_size=64",
    "data.batch_size=4",
    "data.num_workers=0",
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=2",
    "trainer.limit_val_batches=1",
    "trainer.limit_test_batches=1",
    "tracker=none",
]
SCORES = {
    "detection": {"map", "map50", "map75", "map_small", "map_medium", "map_large", "recall100"},
    "segmentation": {"miou", "pixel_accuracy"},
    "instance_segmentation": {"map50", "mask_map", "mask_map50"},
}


def write_digit_scenes(root: Path) -> Path:
    """A few scenes of digits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digit_scenes, "SCENES", FEW)
        return digit_scenes.download(root=str(root))


def read_list(folder: Path) -> list[dict[str, Any]]:
    """A prediction's records."""
    records: list[dict[str, Any]] = json.loads((folder / "predictions.json").read_text("utf-8"))
    return records


def polygon(x1: float, y1: float, x2: float, y2: float, **keys: Any) -> dict[str, Any]:
    """COCO's annotation of a rectangle."""
    ring = [x1, y1, x2, y1, x2, y2, x1, y2]
    whole = {"category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1], "segmentation": [ring], "iscrowd": 0}
    return {**whole, "area": (x2 - x1) * (y2 - y1), **keys}


def write_awkward(root: Path, empty: bool = False) -> Path:
    """COCO data with images of all sizes and modes, and annotations that are allowed but rare; or none of those."""
    rng = np.random.default_rng(0)
    modes = {"RGB": (40, 24), "L": (24, 40), "RGBA": (64, 64), "P": (50, 30), "CMYK": (31, 33), "1": (128, 8)}
    crowd = {"size": [24, 40], "counts": [0, 5 * 24, 35 * 24]}
    annotations = [
        {"image_id": 1, **polygon(4, 4, 20, 16)},
        {"image_id": 1, **polygon(-10, 10, 8, 40, category_id=2)},  # reaches outside
        {"image_id": 1, **polygon(0, 0, 5, 24, iscrowd=1, segmentation=crowd)},
        {"image_id": 3, **polygon(30.1, 30.1, 30.3, 30.3)},  # within a pixel: an empty mask
        {"image_id": 3, **polygon(0, 0, 64, 64, category_id=2)},  # the whole image
        {"image_id": 4, **polygon(60, 40, 70, 50)},  # all of it outside: dropped
        {"image_id": 5, **polygon(0, 0, 31, 10, iscrowd=1)},  # nothing but a crowd
    ]
    images = []
    for split in ("train", "val", "test"):
        (root / split).mkdir(parents=True)
        images = []
        for number, (mode, size) in enumerate(modes.items()):
            pixels = rng.integers(0, 256, (size[1], size[0], 3), np.uint8)
            name = f"{number + 1}.{'jpg' if mode == 'CMYK' else 'png'}"
            Image.fromarray(pixels).convert(mode).save(root / split / name)
            images.append({"id": number + 1, "file_name": name, "width": size[0], "height": size[1]})
        content = {"images": images, "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]}
        content["annotations"] = [] if empty else [{"id": k + 1, **row} for k, row in enumerate(annotations)]
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"{split}.json").write_text(json.dumps(content), "utf-8")
    return root


class SceneTrainingTests:
    """Subclasses name the framework."""

    framework: str

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def data(cls, tmp_path_factory) -> None:
        cls.root = write_digit_scenes(tmp_path_factory.mktemp("data") / "digit_scenes")

    def configure(self, folder: Path, task: str, *overrides: str):
        keys = [f"framework={self.framework}", f"task={task}", f"output_dir={folder.as_posix()}", *TINY]
        if not any(override.startswith("data=") for override in overrides):
            keys.append(f"data.root={self.root.as_posix()}")
        return load_config([*keys, *overrides])

    def fit(self, folder: Path, task: str, *overrides: str) -> tuple[Path, dict[str, np.ndarray]]:
        """Train without the evaluation after it, and return the run folder and the last checkpoint's weights."""
        cfg = self.configure(folder, task, *overrides)
        with Run(cfg) as run:
            fit(cfg, run)
        return run.path, load_weights(find_checkpoint(run.path, "last") / "model.safetensors")[0]

    @pytest.mark.parametrize("task", SCENE_TASKS)
    def test_a_run_folder_is_complete(self, tmp_path, task):
        more = {
            "segmentation": ["loss.class_weights=balanced", "data.mosaic=0.5"],
            "instance_segmentation": ["data.mosaic=0.5", "data.copy_paste=0.5", "data.mixup=0.5"],
        }
        run = train_run(self.configure(tmp_path, task, *more.get(task, [])))
        (row,) = read_rows(run / "metrics.jsonl")
        assert 0 <= row[load_task(task).monitor] <= 1
        assert row["train/loss"] > 0
        assert ("val/loss" in row) == (task == "segmentation")
        for split in ("val", "test"):
            scores = read_json(run / f"evaluation-{split}.json")
            assert SCORES[task] <= scores.keys()
            assert all(scores[name] is None or 0 <= scores[name] <= 1 for name in SCORES[task])
            assert scores["samples"] == 4
            names = [*(["background"] if task == "segmentation" else []), *"0123456789"]
            assert scores["classes"] == [row["class"] for row in scores["per_class"]] == names
        with (run / "predictions-test.csv").open(encoding="utf-8", newline="") as file:
            samples = list(csv.DictReader(file))
        assert [each["sample"] for each in samples] == read_json(run / "splits.json")["test"]["ids"][:4]
        if task == "segmentation":
            assert all(0 <= float(each["miou"]) <= 1 for each in samples)
        else:
            assert all(int(each["found"]) + int(each["missed"]) == int(each["true"]) > 0 for each in samples)
        pictures = {path.name for path in (run / "pictures").iterdir()}
        if task != "segmentation":
            assert {"test-curves.png", "test-confusion.png", "val-curves.png"} <= pictures
            assert scores["threshold"] == read_json(run / "evaluation-val.json")["threshold"]
            assert read_json(run / "card.json")["output"]["score"] == scores["threshold"]
            assert np.shape(scores["confusion_matrix"]) == (11, 11)
        assert {"test-samples.png", "val-samples.png", "training-images.png", "loss.png", "metrics.png"} <= pictures
        page = (run / "report.html").read_text("utf-8")
        assert "Each class" in page
        assert f"test {load_task(task).monitor.removeprefix('val/').replace('_', ' ')}" in page
        assert not list(run.rglob(".*")), "nothing half-written"
        _, metadata = load_weights(find_checkpoint(run, "best") / "model.safetensors")
        assert metadata["task"] == task
        assert json.loads(metadata["classes"]) == names
        assert read_json(run / "run.json")["status"] == "finished"
        assert read_json(run / "run.json")["parameters"] > 1e6
        self.check_predictions(run, task)
        self.check_views(run, task)

    def check_predictions(self, run: Path, task: str) -> None:
        """A run predicts without its data, and its card says what it was scored on."""
        predictor = Predictor.open(run)
        assert predictor.card.data["splits"]["train"]["samples"] == 16
        assert predictor.card.metrics["test"][load_task(task).monitor.removeprefix("val/")] >= 0
        self.check_command(run, task)
        predictor.set_output(score=0.0)
        pixels = np.random.default_rng(0).integers(0, 256, (50, 90, 3), dtype=np.uint8)
        first, second = predictor.predict([pixels, pixels[:40]])
        if task == "segmentation":
            assert first["class_map"].shape == (50, 90)
            assert second["class_map"].shape == (40, 90)
            assert {each["class"] for each in first["classes"]} <= set(predictor.card.classes)
            return
        for each in (*first["objects"], *second["objects"]):
            left, top, right, bottom = each["box"]
            assert 0 <= left < right <= 90
            assert 0 <= top < bottom <= 50
            assert each["class"] in "0123456789"
            assert ("mask" in each) == (task == "instance_segmentation")
        assert first["objects"] or task == "instance_segmentation"

    def check_views(self, run: Path, task: str) -> None:
        """Scores of several views stand beside the run's own."""
        own = {path.name: path.read_bytes() for path in run.glob("*.json")}
        evaluate([str(run), "--tta"])
        scores = read_json(run / "evaluation-val-tta.json")
        assert scores["samples"] == 4
        assert scores["views"].count("px") == 4  # a mirrored digit is none
        assert all(scores[name] is None or 0 <= scores[name] <= 1 for name in SCORES[task])
        assert own == {name: (run / name).read_bytes() for name in own}
        assert "Validation split, in several views" in (run / "report.html").read_text("utf-8")

    def check_command(self, run: Path, task: str) -> None:
        """scripts/predict.py writes what other tools read."""
        out = run / "predictions"
        found = sorted(path for path in self.root.rglob("*") if path.suffix in (".png", ".jpg"))[:2]
        predict([str(run), *map(str, found), "--out", str(out), *([] if task == "segmentation" else ["--score", "0"])])
        assert (out / "index.html").read_text("utf-8").count("<figure>") == 2
        if task == "segmentation":
            assert len(list((out / "maps").glob("*.png"))) == 2
            return
        from pycocotools.coco import COCO

        truth = COCO(str(out / "coco.json"))
        results = json.loads((out / "coco_results.json").read_text("utf-8"))
        assert len(truth.anns) == len(results) == sum(len(each["objects"]) for each in read_list(out))
        if results:
            assert len(truth.loadRes(results).anns) == len(results)

    def test_a_resumed_run_equals_an_uninterrupted_one(self, tmp_path, monkeypatch):
        overrides = ["trainer.max_epochs=2", "data.augment=advanced"]
        _, whole = self.fit(tmp_path / "whole", "detection", *overrides)
        original = TrainingLoop.start_epoch

        def crash_in_the_second_epoch(loop: TrainingLoop) -> None:
            if loop.epoch == 1:
                raise ConnectionError("pulled the plug")
            original(loop)

        monkeypatch.setattr(TrainingLoop, "start_epoch", crash_in_the_second_epoch)
        with pytest.raises(ConnectionError):
            self.fit(tmp_path / "cut", "detection", *overrides)
        monkeypatch.undo()
        (run,) = (tmp_path / "cut").iterdir()
        cfg = load_config([], base=run / "config.yaml")
        with Run(cfg, run) as resumed_run:
            fit(cfg, resumed_run, find_checkpoint(run, "last"))
        resumed = load_weights(find_checkpoint(run, "last") / "model.safetensors")[0]
        assert all(np.array_equal(whole[name], resumed[name]) for name in whole)
        assert [row["epoch"] for row in read_rows(run / "metrics.jsonl")] == [1, 2]

    @pytest.mark.parametrize("empty", [False, True], ids=["awkward", "no objects"])
    @pytest.mark.parametrize("task", SCENE_TASKS)
    def test_awkward_images_and_images_without_objects_are_learned_from(self, tmp_path, task, empty):
        root = write_awkward(tmp_path / "data", empty)
        keys = ["data=coco_folder", f"data.root={root.as_posix()}", "data.augment=basic", *TINY, "data.batch_size=2"]
        keys += [] if empty else ["data.rectangular=all"]  # the shapes are as awkward: from 128 x 8 to 24 x 40
        run, arrays = self.fit(tmp_path / "out", task, *keys, "trainer.limit_train_batches=1.0")
        (row,) = read_rows(run / "metrics.jsonl")
        assert row["step"] == 3
        assert np.isfinite(row["train/loss"])
        assert all(np.isfinite(array).all() for array in arrays.values())
        if task == "detection" and not empty:
            self.check_order(run)
            self.check_shapes(run)

    def check_order(self, run: Path) -> None:
        """Predictions in rectangles stand beside the images that they are for."""
        experiment = load_experiment(run, ["trainer.limit_test_batches=1.0"])
        backend = load_backend(experiment.cfg)
        network = backend.load_network(experiment, find_checkpoint(run, "last"))
        collected = backend.predict(experiment, network, "test")
        names = [Path(name).stem for name in list_ids(experiment.evaluated("test"), Path())]
        objects = {name: len(true) for name, (_, true) in zip(names, collected, strict=True)}
        assert objects == {"1": 3, "2": 0, "3": 2, "4": 0, "5": 1, "6": 0}
        assert names[-1] == "6", "the widest"

    def check_shapes(self, run: Path) -> None:
        """A run in rectangles is exported in squares: the card decides which batches there are."""
        experiment = load_experiment(run, ["data.batch_size=1", "trainer.limit_test_batches=1.0"])
        card = find_card(run, find_checkpoint(run, "last"))
        square = replace(card, input={**card.input, "rectangular": False})
        shapes = [
            {images.shape[2:] for images, *_ in build_loader(experiment, each, "test")} for each in (square, card)
        ]
        assert shapes[0] == {(64, 64)}
        assert shapes[1] - shapes[0]

    @pytest.mark.parametrize("task", SCENE_TASKS)
    def test_batches_of_several_sizes_are_learned_from(self, tmp_path, task):
        run, _ = self.fit(tmp_path, task, "data.sizes=[32,64,96]", "trainer.limit_train_batches=4")
        assert np.isfinite(read_rows(run / "metrics.jsonl")[0]["train/loss"])

    @pytest.mark.parametrize(
        ("overrides", "message"),
        [
            (["data.image_size=100"], "size that 32 divides, not of 100 pixels: use 96"),
            (["data.sizes=[80]"], "not of 80 pixels: use 64"),
            (["loss=network"], "model=yolov10n learns by a loss: set another one than loss=network"),
            (["model=mask_rcnn_resnet18"], "model=mask_rcnn_resnet18 is for task=instance_segmentation"),
            (["model=mask_rcnn_resnet18", "model.tasks=null"], "learns by its own losses: set loss=network"),
            (["model.pretrained=true"], "no pretrained weights for 'yolov10n'"),
            (["data.batch_size=99"], "data.batch_size=99 is more than the 16 training samples"),
        ],
    )
    def test_mistakes_are_one_sentence_and_leave_nothing(self, tmp_path, overrides, message):
        with pytest.raises(UserError, match=message):
            self.fit(tmp_path, "detection", *overrides)
        assert not list(tmp_path.iterdir())

    def test_a_network_with_losses_of_its_own_is_evaluated_and_predicts(self, tmp_path):
        overrides = ["model=retinanet_resnet18", "loss=network"]
        run, _ = self.fit(tmp_path, "detection", *overrides)
        evaluate_run(Experiment(self.configure(tmp_path, "detection", *overrides)), run, ["val"])
        assert 0 <= read_json(run / "evaluation-val.json")["map"] <= 1
        assert (run / "pictures" / "val-samples.png").is_file()
        self.check_command(run, "detection")

    def test_evaluation_and_repetition_know_the_task(self, tmp_path, capsys):
        run, first = self.fit(tmp_path, "segmentation")
        main(["--from", str(run), "trainer.limit_val_batches=1"])
        again = max(tmp_path.glob("*/config.yaml"), key=lambda path: path.stat().st_mtime).parent
        repeated = load_weights(find_checkpoint(again, "last") / "model.safetensors")[0]
        assert all(np.array_equal(first[name], repeated[name]) for name in first)
        assert "miou" in capsys.readouterr().out

"""Starting from weights made for other classes; test_fine_tuning_lightning.py and ..._paddle.py run these tests."""

import json
import logging
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from scene_training import TINY, write_digit_scenes
from src.kit.config.compose import load_config
from src.kit.errors import UserError
from src.kit.run import Run, read_rows
from src.kit.training import find_checkpoint
from src.kit.training.networks import build_model
from src.kit.weights import load_weights, save_weights
from table_files import mixed_columns, write_csv
from tests.support import fit, model_config

# model -> changed arguments, and the layers that another number of classes changes: the last ones
CASES = {
    "small_cnn": ({}, {"12"}),
    "resnet18": ({}, {"fc"}),
    "resnet18_attention": ({}, {"fc"}),
    "efficientnet": ({}, {"classifier.1"}),
    "yolov10n": ({}, {f"one_to_{head}.{stride}.score.4" for head in ("many", "one") for stride in range(3)}),
    "deeplab_mobilenet_v2": ({"width": 16}, {"classify"}),
    "deeplab_resnet18": ({"width": 16}, {"classify"}),
    "tabular_mlp": ({}, {"layers.6"}),
}
SCENES = {"detection": "one_to_one.0.score.4", "segmentation": "classify"}


class FineTuningTests:
    """Subclasses name the framework, and the layers of the Mask R-CNN that is its own."""

    framework: str
    mask_rcnn: frozenset[str]

    @pytest.fixture
    def said(self, caplog) -> pytest.LogCaptureFixture:
        """The messages in the run's log."""
        caplog.set_level(logging.INFO, "train")
        return caplog

    def build(self, name: str, classes: int, file: Path | None = None, **changes):
        cfg = model_config(self.framework, name, **changes, weights=str(file) if file else None)
        self.seed()
        if name == "tabular_mlp":
            return build_model(cfg, classes, 7, 1, cardinalities=(3, 4), knots=((-1.0, 0.0, 1.0), (), (), (), ()))
        return build_model(cfg, classes, 3, 64)

    def arrays(self, network) -> dict[str, np.ndarray]:
        return import_module(f"src.kit.{self.framework}").weights_to_numpy(network)

    def seed(self) -> None:
        """Make the next network start from the same values."""
        raise NotImplementedError

    @pytest.mark.parametrize(("before", "after"), [(10, 2), (2, 10), (5, 5)])
    @pytest.mark.parametrize("name", [*CASES, "mask_rcnn_resnet18"])
    def test_all_but_the_layers_of_the_classes_are_taken(self, tmp_path, said, name, before, after):
        changes, layers = CASES.get(name) or ({"width": 16}, self.mask_rcnn)
        self.expect(tmp_path, said, name, (before, after), changes, layers)

    def test_a_detector_of_anchors_too(self, tmp_path, said):
        layers = {"detector.head.classification_head.cls_logits"}
        self.expect(tmp_path, said, "retinanet_resnet18", (10, 2), {}, layers)

    def expect(self, tmp_path, said, name, counts, changes, layers) -> None:
        """Only these layers keep their initial values when the number of classes changes from before to after."""
        before, after = counts
        trained = {key: array + 1 for key, array in self.arrays(self.build(name, before, **changes)).items()}
        file = tmp_path / "model.safetensors"
        save_weights(file, trained, {"classes": json.dumps([str(number) for number in range(before)])})
        started = self.arrays(self.build(name, after, file, **changes))
        initial = self.arrays(self.build(name, after, **changes))
        left_out = {key for key, array in started.items() if not np.array_equal(array, trained[key])}
        assert {key.rpartition(".")[0] for key in left_out} == (layers if before != after else set())
        assert all(np.array_equal(started[key], initial[key]) for key in left_out)
        lines = [record.getMessage() for record in said.records if "start from random values" in record.getMessage()]
        assert len(lines) == (before != after)
        assert all(layer in line for line in lines for layer in layers)

    def test_layers_that_grow_with_the_classes_are_left_out_as_a_whole(self, tmp_path):
        """From 64 classes on, YOLOv10n's class branch is wider."""
        trained = self.arrays(self.build("yolov10n", 80))
        save_weights(tmp_path / "model.safetensors", trained, {"classes": json.dumps(["thing"] * 80)})
        started = self.arrays(self.build("yolov10n", 2, tmp_path / "model.safetensors"))
        changed = {key for key, array in started.items() if not np.array_equal(array, trained[key])}
        assert changed
        assert all(".score." in key for key in changed)
        assert all(np.array_equal(started[key], trained[key]) for key in started if ".score.0." in key)

    @pytest.mark.parametrize("metadata", [{}, {"classes": "5"}])
    def test_a_file_that_names_no_classes_is_one_of_imagenet(self, tmp_path, metadata):
        trained = self.arrays(self.build("resnet18", 1000))
        save_weights(tmp_path / "model.safetensors", trained, metadata)
        started = self.arrays(self.build("resnet18_attention", 3, tmp_path / "model.safetensors"))
        new = {name for name in started if name not in trained or not np.array_equal(started[name], trained[name])}
        assert {name.partition(".")[0] for name in new} == {"attention", "norm", "fc"}

    @pytest.mark.parametrize(
        ("name", "changes", "other", "change"),
        [
            ("yolov10n", {}, "yolov10s", {}),
            ("deeplab_resnet18", {"width": 16}, "deeplab_resnet18", {"width": 32}),
            ("deeplab_resnet18", {"width": 16}, "deeplab_mobilenet_v2", {"width": 16}),
            ("resnet18", {}, "resnet34", {}),
            ("tabular_mlp", {"hidden": [8]}, "tabular_mlp", {"hidden": [8, 8]}),
        ],
    )
    def test_another_model_is_refused(self, tmp_path, said, name, changes, other, change):
        trained = self.arrays(self.build(name, 10, **changes))
        save_weights(tmp_path / "model.safetensors", trained, {"classes": json.dumps(["thing"] * 10)})
        with pytest.raises(UserError, match="checkpoint of another model"):
            self.build(other, 2, tmp_path / "model.safetensors", **change)
        assert not said.records

    backbones = ("deeplab_resnet18", "mask_rcnn_resnet18", "retinanet_resnet18")

    def test_a_classifier_starts_the_backbones(self, tmp_path, said):
        trained = {key: array + 1 for key, array in self.arrays(self.build("resnet18", 7, stem="imagenet")).items()}
        save_weights(tmp_path / "model.safetensors", trained, {"classes": json.dumps(["thing"] * 7)})
        for name in self.backbones:
            started = self.arrays(self.build(name, 3, tmp_path / "model.safetensors"))
            initial = self.arrays(self.build(name, 3))
            prefix = next(key for key in started if key.endswith("conv1.weight")).removesuffix("conv1.weight")
            moved = {key.removeprefix(prefix) for key in started if key.startswith(prefix)}
            assert moved == {key for key in trained if not key.startswith("fc.")}
            assert all(np.array_equal(started[prefix + key], trained[key]) for key in moved)
            assert all(np.array_equal(started[key], initial[key]) for key in started if not key.startswith(prefix))
            assert f"Only the backbone of {name} starts from these weights" in said.text

    def test_a_grey_backbone_takes_the_mean_of_the_colours(self, tmp_path):
        trained = self.arrays(self.build("resnet18", 7, stem="imagenet"))
        save_weights(tmp_path / "model.safetensors", trained, {})
        cfg = model_config(self.framework, "deeplab_resnet18", weights=str(tmp_path / "model.safetensors"))
        stem = self.arrays(build_model(cfg, 3, 1, 64))["backbone.conv1.weight"]
        np.testing.assert_allclose(stem, trained["conv1.weight"].sum(axis=1, keepdims=True), rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize(("before", "after"), [("resnet34", "deeplab_resnet18"), ("resnet18", "deeplab_resnet50")])
    def test_a_backbone_of_another_depth_is_refused(self, tmp_path, before, after):
        save_weights(tmp_path / "model.safetensors", self.arrays(self.build(before, 2)), {})
        with pytest.raises(UserError, match=r"do not fit this network's backbone: layer\S+ is"):
            self.build(after, 2, tmp_path / "model.safetensors")

    def fit(self, *overrides: str) -> tuple[Path, dict[str, np.ndarray]]:
        """Train, and return the run folder and its weights."""
        cfg = load_config([f"framework={self.framework}", *overrides])
        with Run(cfg) as run:
            fit(cfg, run)
        return run.path, load_weights(find_checkpoint(run.path, "last") / "model.safetensors")[0]

    def compare(self, keys: list[str], first: list[str], second: list[str], layer: str) -> None:
        """Train with `first`, continue with `second` in small steps; all weights but `layer`'s must be kept."""
        run, before = self.fit(*keys, *first)
        file = find_checkpoint(run, "last") / "model.safetensors"
        again, after = self.fit(*keys, *second, f"model.weights={file.as_posix()}", "optimizer.lr=1e-7")
        assert np.isfinite(read_rows(again / "metrics.jsonl")[0]["train/loss"])
        text = (again / "train.log").read_text("utf-8")
        assert text.count("start from random values") == 1
        assert layer in text
        assert f"{layer}.weight" in after
        assert before[f"{layer}.weight"].shape != after[f"{layer}.weight"].shape
        learned = [name for name in after if "running" not in name and before[name].shape == after[name].shape]
        moves = [np.abs(after[name] - before[name]).max() for name in learned]
        assert 0 < max(moves) < 1e-5

    @pytest.mark.parametrize("task", [*SCENES, "instance_segmentation"])
    def test_a_run_goes_on_with_two_of_ten_classes(self, tmp_path, task):
        root = write_digit_scenes(tmp_path / "data")
        small = ["model.width=16"] if task != "detection" else []
        layers = {**SCENES, "instance_segmentation": min(self.mask_rcnn)}
        folders = [f"output_dir={(tmp_path / 'out').as_posix()}", f"data.root={root.as_posix()}"]
        self.compare([f"task={task}", *folders, *TINY, *small], [], ["data.classes=['3','7']"], layers[task])

    def test_a_table_goes_on_with_another_number_of_classes(self, tmp_path):
        columns = mixed_columns()
        write_csv(tmp_path / "two.csv", columns)
        columns["paid"] = [answer if row % 5 else "never" for row, answer in enumerate(columns["paid"])]
        write_csv(tmp_path / "three.csv", columns)
        keys = ["task=tabular", "data=table_file", "data.target.column=paid", f"output_dir={tmp_path.as_posix()}"]
        keys += ["data.batch_size=16", "tracker=none", "trainer.max_epochs=1"]
        files = [[f"data.root={(tmp_path / name).as_posix()}"] for name in ("two.csv", "three.csv")]
        self.compare(keys, *files, "layers.6")

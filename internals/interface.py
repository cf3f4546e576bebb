"""What a notebook user expects, in every framework; test_interface_*.py run it in theirs."""

import csv
import json
import shutil
import subprocess
import sys
import textwrap
from collections import Counter
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

import src
from guide import code_blocks, documents
from paths import TEMPLATE
from scripts.train import main as train_script
from src.kit import catalog as build
from src.kit.compression import compress_command
from src.kit.config import components
from src.kit.edge_search import gather, optimize_command
from src.kit.errors import UserError, run_main
from src.kit.inference import Drift, Predictor, read_card
from src.kit.run import Run, read_rows
from src.kit.training import TrainedRun, evaluate, export_command, find_checkpoint, load_run, train
from src.kit.weights import load_weights
from tests.support import fit

KEYS = ["data=digits", "model=small_cnn", "trainer.max_epochs=2", "data.batch_size=64", "tracker=none"]
# key -> two values, after which other keys may follow; a framework's tests may add others
PAIRS = {
    "model.dropout": ("0.0", "0.2"),
    "optimizer": ("adamw", "sgd"),
    "scheduler": ("one_cycle", "plateau"),
    "data.sampler": ("none", "weighted"),
    "data.mixup_alpha": ("0.0", "0.2"),
    "trainer.accumulate_grad_batches": ("1", "2"),
    "trainer.batch_growth.every_n_epochs": ("null", "1"),
    "trainer.gradient_clip_val": ("null", "0.5"),
    "trainer.gradient_clip_algorithm": ("norm", "value"),
    "trainer.limit_train_batches": ("3 trainer.limit_val_batches=2", "0.15 trainer.limit_val_batches=1.0"),
    "trainer.early_stopping.patience": ("null", "0"),
    "trainer.checkpoint.every_n_steps": ("null", "1 trainer.checkpoint.keep_best=2"),
    "trainer.ema": ("null", "0.9"),
}


class InterfaceTests:
    """Subclasses name the framework."""

    framework: str
    pairs = PAIRS

    def fill_memory(self) -> None:
        """Ask for 512 TB."""
        raise NotImplementedError

    def test_every_pair_of_values_trains(self, tmp_path):
        teacher = train(self.configure(tmp_path, "trainer.max_epochs=1", "data.image_size=6"))
        pairs = self.pairs | {"trainer.distill.teacher": ("null", str(teacher.path))}
        assert len(pairs) <= 15
        for row in range(16):  # an orthogonal array: each two keys take all four combinations of their values
            levels = {key: bin(row & column).count("1") % 2 for column, key in enumerate(pairs, 1)}
            chosen = [word for key, level in levels.items() for word in f"{key}={pairs[key][level]}".split()]
            cfg = self.configure(tmp_path, "data.val_fraction=0.1", *chosen)
            with Run(cfg) as run:
                fit(cfg, run)
            history = read_rows(run.path / "metrics.jsonl")
            assert len(history) in (1, 2), chosen  # 1: stopped early
            assert all(np.isfinite(row["train/loss"]) for row in history), chosen

    def configure(self, folder: Path, *overrides: str):
        return src.load_config([f"framework={self.framework}", f"output_dir={folder.as_posix()}", *KEYS, *overrides])

    def test_memory_that_is_full_is_one_sentence(self, tmp_path, capsys):
        keys = [f"framework={self.framework}", f"output_dir={tmp_path.as_posix()}", *KEYS]
        with pytest.raises(SystemExit) as ended:
            run_main(train_script, [*keys, "model.width=1500000"])  # 162 TB, more than a process can address
        assert ended.value.code == 2
        assert capsys.readouterr().err == (
            "error: This machine ran out of memory: choose a smaller model, batch or data.image_size, or stop other "
            "programs.\n"
        )
        assert not [*tmp_path.iterdir()]
        kit = import_module(f"src.kit.{self.framework}")
        said = r"This machine ran out of memory with data\.batch_size=64: halve it"
        with pytest.raises(UserError, match=said), kit.readable_errors(self.configure(tmp_path)):
            self.fill_memory()

    def test_train_evaluate_load_and_predict(self, tmp_path, monkeypatch):
        run = train(self.configure(tmp_path, "optimizer.lr=0.01", "trainer.max_epochs=4"))
        assert run.metrics["test"]["accuracy"] > 0.9
        assert [row["epoch"] for row in run.history] == [1, 2, 3, 4]
        again = load_run(run.path)
        split = again.experiment.split("test")
        images = split.images.get(np.arange(40))
        predicted = again.predict(images)
        pairs = zip(split.targets[:40], predicted, strict=True)
        right = [split.classes[target] == each["class"] for target, each in pairs]
        assert np.mean(right) > 0.85
        assert all(0 < each["score"] <= 1 for each in predicted)
        (alone,) = again.predict(images[0])
        assert alone["class"] == predicted[0]["class"]
        assert alone["score"] == pytest.approx(predicted[0]["score"], abs=1e-6)
        Image.fromarray(images[3, ..., 0]).save(tmp_path / "digit.png")
        (from_file,) = again.predict(tmp_path / "digit.png")
        assert from_file["class"] == predicted[3]["class"]
        assert from_file["score"] == pytest.approx(predicted[3]["score"], abs=1e-4)
        assert evaluate(again, "val")["accuracy"] == again.metrics["val"]["accuracy"]
        with pytest.raises(UserError, match="does not exist"):
            again.predict(tmp_path / "none.png")
        self.check_export(again, images, predicted)
        monkeypatch.setattr("src.kit.edge_search.SECONDS", 0.02)
        self.check_compression(again, images[:9])

    def check_export(self, run: TrainedRun, images: np.ndarray, predicted: list[dict]) -> None:
        """An export predicts what its run does; INT8 predicts nearly the same."""
        folder = export_command(run.path, "onnx", int8=True)
        assert folder == run.path / "export"
        names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        assert names == {"card.json", "model.onnx", "model.safetensors", "int8/card.json", "int8/model.onnx"}
        exported = Predictor.open(folder).predict(images)
        assert [each["class"] for each in exported] == [each["class"] for each in predicted]
        scores = [[each["score"] for each in part] for part in (exported, predicted)]
        np.testing.assert_allclose(*scores, atol=1e-5)
        coarse = Predictor.open(folder / "int8").predict(images)
        assert np.mean([one["class"] == other["class"] for one, other in zip(coarse, predicted, strict=True)]) > 0.9
        assert (folder / "int8" / "model.onnx").stat().st_size < 0.5 * (folder / "model.onnx").stat().st_size
        with pytest.raises(UserError, match=r"cannot export 'onxn': choose of onnx, (torch|paddle)"):
            run.export(["onxn"])
        assert (folder / "model.onnx").exists(), "a mistake leaves the last export as it was"
        shutil.copy(folder / "model.onnx", run.path / "alone.onnx")  # with its card in it
        self.check_drift(folder, run.experiment.split("test").images)
        alone = Predictor.open(run.path / "alone.onnx").predict(images)
        assert alone == exported

    def check_drift(self, folder: Path, digits: Any) -> None:
        """An export knows its training data: the test split's digits are nothing new, darker ones are."""
        images = digits.get(np.arange(len(digits)))
        for each, expected in ((images, set()), ((images * 0.7).astype(np.uint8), {"brightness", "contrast"})):
            predictor = Predictor.open(folder)
            predictor.drift = Drift(predictor.card, None)
            predictor.predict(list(each))
            shifts = predictor.drift.shifts()
            assert set(shifts) == {"brightness", "contrast", "detail", "predicted class", "predicted score"}
            moved = {name for name, shift in shifts.items() if shift.drifted}
            assert moved >= expected and bool(moved) == bool(expected), moved

    def test_the_fastest_that_keeps_the_score_is_written(self, tmp_path, monkeypatch, capsys):
        run = train(self.configure(tmp_path, "optimizer.lr=0.01"))
        monkeypatch.setattr("src.kit.edge_search.SECONDS", 0.05)
        folder = optimize_command(run.path, batch_size="1,4")
        assert folder == run.path / "edge-cpu"
        best = json.loads((folder / "optimized.json").read_text("utf-8"))
        with (folder / "candidates.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        tried = {(row["runtime"], row["precision"], row["batch"]) for row in rows}
        kinds = {
            ("onnxruntime", "f32"),
            ("onnxruntime", "int8"),
            *(("openvino", each) for each in ("f32", "bf16", "int8")),
        }
        assert tried == {(*kind, batch) for kind in kinds for batch in "14"}
        reference = float(rows[0]["score"])
        assert reference == pytest.approx(run.metrics["val"]["accuracy"], abs=0.004)
        fitting = [row for row in rows if float(row["score"]) >= reference - 0.01]
        times = [float(row["milliseconds"]) / int(row["batch"]) for row in fitting]
        assert best["milliseconds"] / best["batch"] == pytest.approx(min(times))
        assert 10 < best["memory_mb"] < 1000
        images = run.experiment.split("test").images.get(np.arange(7))
        pairs = zip(Predictor.open(folder).predict(images), run.predict(images), strict=True)
        assert sum(one["class"] == other["class"] for one, other in pairs) >= 6
        assert "data.cache=none was chosen" in (run.path / "train.log").read_text("utf-8")
        table = capsys.readouterr().out
        assert table.count("\n* ") == 1
        assert all(len(line) <= 80 for line in table.splitlines() if "  " in line)

        model = run.path / "export" / "model.onnx"
        orin: dict[str, Any] = {"model_path": model, "target_device": "jetson-orin", "batch_size": "2"}
        folder = optimize_command(**orin, output=tmp_path / "orin")
        assert "--onnx=model.int8.onnx --int8 --fp16" in (folder / "build_engine.sh").read_text("utf-8")
        for name in ("model.onnx", "model.int8.onnx"):
            shape = onnx.load(folder / name).graph.input[0].type.tensor_type.shape
            assert shape.dim[0].dim_value == 2
        card = read_card(folder)
        larger = gather(replace(card, input={**card.input, "shape": [1, 16, 16]}), None)
        assert np.concatenate(larger.batches).shape == (128, 1, 16, 16), "images of the size of the export"
        with pytest.raises(UserError, match=r"takes images of 8 pixels, not 16: give the run \(.+\) in place of"):
            optimize_command(**orin, input_size="16x16")

    def check_compression(self, run: TrainedRun, images: np.ndarray) -> TrainedRun:
        """A compressed run is a run: half of its channels, of the rest half of the weights, and every command."""
        path = compress_command([str(run.path)], channels=0.5, pattern="2:4", epochs=1)
        start = load_weights(run.path / "compressed-channels-0.5-pattern-2-4" / "model.safetensors")[0]
        arrays = load_weights(find_checkpoint(path, "best") / "model.safetensors")[0]
        assert [arrays[name].shape[0] for name in ("0.weight", "3.weight", "6.weight")] == [6, 12, 24]
        assert (arrays["6.weight"] == 0).mean() == 0.5
        assert np.array_equal(arrays["6.weight"] == 0, start["6.weight"] == 0), "zeros stay zeros"
        assert not np.array_equal(arrays["6.weight"], start["6.weight"])
        before, compressed, after = json.loads((path / "compression.json").read_text("utf-8"))["rows"]
        assert after["parameters"] == compressed["parameters"] < 0.4 * before["parameters"]
        assert after["operations"] < 0.5 * before["operations"]
        assert after["score"] == pytest.approx(evaluate(path, "val")["accuracy"])
        assert after["score"] > max(0.5, compressed["score"])
        assert before["milliseconds"] > 0 < after["milliseconds"]
        again = load_run(path)
        exported = Predictor.open(again.export(["onnx"])).predict(images)
        assert [each["class"] for each in exported] == [each["class"] for each in again.predict(images)]
        return again

    def test_data_and_network_are_built_once(self, tmp_path, monkeypatch):
        splits, networks = Counter[str](), []
        build_split = build.build_split
        monkeypatch.setattr(
            build, "build_split", lambda cfg, split, *rest: splits.update([split]) or build_split(cfg, split, *rest)
        )
        module = components.load_component("model", "small_cnn", self.framework)
        original = module.build
        monkeypatch.setattr(module, "build", lambda **keys: networks.append(1) or original(**keys))
        train(self.configure(tmp_path, "trainer.max_epochs=1", "trainer.limit_train_batches=2"))
        assert splits == {"train": 1, "val": 1, "test": 1}
        assert len(networks) == 2, "one that trains, and one for the best weights"

    def test_own_callbacks_and_metrics_reach_the_run_folder(self, tmp_path):
        project = copy_project(tmp_path / "project")
        path = f"src/trainers/callbacks/{self.framework}/weight_norm.py"
        write(project / path, code_blocks(documents(self.framework)["guide.md"])[path])
        write(project / "src" / "tasks" / "metrics" / "recall_of.py", METRIC)
        keys = ["trainer.callbacks=[weight_norm]", "trainer.metrics={recall_of: {digit: 5}}"]
        command = [sys.executable, "scripts/train.py", f"framework={self.framework}", *KEYS, *keys]
        done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        (run,) = (project / "outputs").iterdir()
        rows = read_rows(run / "metrics.jsonl")
        assert all(0 <= row["val/recall_of"] <= 1 for row in rows)
        assert all(row["weights/norm"] > 0 for row in rows)
        header = (run / "metrics.csv").read_text("utf-8").splitlines()[0].split(",")
        assert {"weights/norm", "val/recall_of"} <= set(header)
        assert "recall_of" in json.loads((run / "evaluation-test.json").read_text("utf-8"))
        assert (run / "pictures" / "metrics.png").exists()

    def test_an_unknown_callback_is_one_sentence(self, tmp_path):
        with pytest.raises(UserError, match="Unknown callback 'nothing'"):
            train(self.configure(tmp_path, "trainer.callbacks=[nothing]"))


METRIC = """
    from src.tasks.classification import concatenate


    def build(*, digit: int = 3):
        def recall(collected, names):
            outputs, targets = concatenate(collected)
            return float((outputs.argmax(axis=1) == targets)[targets == digit].mean())

        return recall
"""


def copy_project(folder: Path) -> Path:
    """The project's own code without tests, to which a test can add files."""
    for name in ("src", "scripts"):
        shutil.copytree(TEMPLATE / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def write(path: Path, source: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(source), "utf-8")

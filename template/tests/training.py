"""What must hold for training in every framework; test_train_lightning.py and test_train_paddle.py run it in theirs."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf

import scripts.eval
import scripts.test
from scripts.train import main
from src.kit.config.compose import load_config, option, option_names
from src.kit.errors import UserError
from src.kit.run import Run, read_json, read_rows
from src.kit.training import TrainingLoop, build_loss, find_checkpoint, load_run, newest_run, train_run
from src.kit.weights import load_weights
from src.tasks.classification import concatenate
from tests.support import fit, predict

TINY = [
    "task=classification",
    "model=small_cnn",
    "data=digits",
    "data.batch_size=32",
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=4",
    "tracker=none",
]


class TrainingTests:
    """Subclasses name the framework."""

    framework: str

    def configure(self, folder: Path, *overrides: str) -> DictConfig:
        return load_config([f"framework={self.framework}", f"output_dir={folder.as_posix()}", *TINY, *overrides])

    def run(self, folder: Path, *overrides: str) -> tuple[Path, dict[str, np.ndarray]]:
        """Train without the evaluation after it, and return the run folder and the last checkpoint's weights."""
        cfg = self.configure(folder, *overrides)
        with Run(cfg) as run:
            fit(cfg, run)
        return run.path, load_weights(find_checkpoint(run.path, "last") / "model.safetensors")[0]

    def test_it_learns_and_leaves_a_complete_run_folder(self, tmp_path):
        run = train_run(
            self.configure(tmp_path, "trainer.max_epochs=5", "trainer.limit_train_batches=1.0", "optimizer.lr=0.01")
        )
        result = json.loads((run / "evaluation-test.json").read_text("utf-8"))
        assert result["accuracy"] > 0.9
        with (run / "predictions-test.csv").open(encoding="utf-8", newline="") as file:
            samples = list(csv.DictReader(file))
        right = [each["true"] == each["predicted"] for each in samples]
        assert sum(right) / len(right) == pytest.approx(result["accuracy"])
        assert [each["sample"] for each in samples] == [str(k) for k in read_json(run / "splits.json")["test"]["ids"]]
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
        assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5]
        assert rows[-1]["train/loss"] < rows[0]["train/loss"]
        assert (run / "metrics.csv").read_text("utf-8").count("\n") == 6
        info = json.loads((run / "run.json").read_text("utf-8"))
        assert info["status"] == "finished"
        assert info["framework"] == self.framework
        assert {
            "seed",
            "versions",
            "git_commit",
            "template_version",
            "hardware",
            "command",
            "duration_s",
        } <= info.keys()
        pictures = {path.name for path in (run / "pictures").iterdir()}
        assert {"loss.png", "metrics.png", "learning-rate.png", "training-images.png"} <= pictures
        assert {"test-confusion.png", "test-samples.png", "val-confusion.png", "val-samples.png"} <= pictures
        for name in ("config.yaml", "train.log", "model.txt", "model_graph.png", "report.html", "evaluation-val.json"):
            assert (run / name).stat().st_size > 0, name
        assert not list(run.rglob(".*")), "nothing half-written"

    def test_the_same_seed_gives_the_same_bits_and_another_seed_others(self, tmp_path):
        _, first = self.run(tmp_path)
        _, second = self.run(tmp_path)
        _, other = self.run(tmp_path, "seed=43")
        assert all(np.array_equal(first[name], second[name]) for name in first)
        assert any(not np.array_equal(first[name], other[name]) for name in first)

    def test_from_repeats_a_run_exactly(self, tmp_path):
        run, first = self.run(tmp_path, "optimizer.lr=0.02", "trainer.max_epochs=2")
        main(["--from", str(run)])
        again = max(tmp_path.glob("*/config.yaml"), key=lambda path: path.stat().st_mtime).parent
        assert again != run
        repeated = load_weights(find_checkpoint(again, "last") / "model.safetensors")[0]
        assert all(np.array_equal(first[name], repeated[name]) for name in first)

    @pytest.mark.parametrize("scheduler", ["one_cycle", "plateau"])
    def test_a_resumed_run_equals_an_uninterrupted_one(self, tmp_path, monkeypatch, scheduler):
        # dropout and momentum: the generator and the optimizer must go on where they stood
        overrides = ["trainer.max_epochs=3", f"scheduler={scheduler}", "model.dropout=0.2", "optimizer=sgd"]
        _, whole = self.run(tmp_path / "whole", *overrides)
        original = TrainingLoop.start_epoch

        def crash_in_the_third_epoch(loop: TrainingLoop) -> None:
            if loop.epoch == 2:
                raise ConnectionError("pulled the plug")
            original(loop)

        monkeypatch.setattr(TrainingLoop, "start_epoch", crash_in_the_third_epoch)
        with pytest.raises(ConnectionError):
            self.run(tmp_path / "cut", *overrides)
        monkeypatch.undo()
        (run,) = (tmp_path / "cut").iterdir()
        assert json.loads((run / "run.json").read_text("utf-8"))["status"] == "failed"
        with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"epoch": 3, "step": 12, "lr": 0.0}) + "\n" + '{"epoch": ')  # logged, never saved
        cfg = load_config([], base=run / "config.yaml")
        with Run(cfg, run) as resumed_run:
            fit(cfg, resumed_run, find_checkpoint(run, "last"))
        resumed = load_weights(find_checkpoint(run, "last") / "model.safetensors")[0]
        assert all(np.array_equal(whole[name], resumed[name]) for name in whole)
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
        assert [row["epoch"] for row in rows] == [1, 2, 3]

    def test_a_finished_run_is_not_resumed(self, tmp_path):
        run, _ = self.run(tmp_path)
        with pytest.raises(UserError, match="repeat it with --from"):
            main(["--resume", str(run)])

    def test_a_run_cut_off_after_its_last_epoch_is_only_evaluated(self, tmp_path):
        run, first = self.run(tmp_path)
        cfg = load_config([], base=run / "config.yaml")
        with Run(cfg, run) as again:
            fit(cfg, again, find_checkpoint(run, "last"))
        kept = load_weights(find_checkpoint(run, "last") / "model.safetensors")[0]
        assert all(np.array_equal(first[name], kept[name]) for name in first)

    def test_a_tracker_that_cannot_start_leaves_nothing(self, tmp_path, monkeypatch):
        def refuse(cfg: DictConfig, run_dir: Path) -> None:
            raise UserError("tracker=wandb could not start.")

        monkeypatch.setattr("src.kit.run.open_tracker", refuse)
        with pytest.raises(UserError, match="could not start"):
            self.run(tmp_path)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("algorithm", ["norm", "value"])
    def test_clipping_bounds_the_step(self, tmp_path, algorithm):
        sgd = ["optimizer=sgd", "optimizer.momentum=0", "optimizer.nesterov=false", "optimizer.weight_decay=0"]
        one = [*sgd, "optimizer.lr=1", "scheduler=constant", "trainer.limit_train_batches=1"]
        clip = ["trainer.gradient_clip_val=0.001", f"trainer.gradient_clip_algorithm={algorithm}"]
        _, start = self.run(tmp_path, *one, "optimizer.lr=1e-12")
        _, free = self.run(tmp_path, *one)
        _, clipped = self.run(tmp_path, *one, *clip)
        trained = [name for name in start if "running" not in name]
        moves = [np.concatenate([(end[name] - start[name]).ravel() for name in trained]) for end in (free, clipped)]
        size = (lambda move: np.linalg.norm(move)) if algorithm == "norm" else (lambda move: np.abs(move).max())
        assert size(moves[0]) > 0.01
        assert size(moves[1]) == pytest.approx(0.001, rel=0.01)

    def test_early_stopping_waits_as_long_as_it_was_told(self, tmp_path):
        still = ["optimizer.lr=1e-12", "trainer.max_epochs=9", "trainer.early_stopping.patience=2"]
        run, _ = self.run(tmp_path, *still, "trainer.early_stopping.min_delta=1.0")
        assert (run / "metrics.jsonl").read_text("utf-8").count("\n") == 3

    def test_so_many_checkpoints_are_kept(self, tmp_path):
        keep = ["trainer.checkpoint.keep_best=1", "trainer.checkpoint.keep_last=3"]
        run, _ = self.run(tmp_path, "trainer.max_epochs=5", *keep)
        kept = sorted(path.name for path in (run / "checkpoints").iterdir() if path.is_dir())
        assert {name[:9] for name in kept} >= {"epoch=003", "epoch=004", "epoch=005"}
        assert 3 <= len(kept) <= 4

    def test_limits_count_batches(self, tmp_path):
        run, _ = self.run(tmp_path, "trainer.limit_train_batches=3", "trainer.limit_test_batches=2")
        assert json.loads((run / "metrics.jsonl").read_text("utf-8"))["step"] == 3
        cfg = load_config([], base=run / "config.yaml")
        outputs, targets = concatenate(predict(cfg, find_checkpoint(run, "best"), "test"))
        assert outputs.shape == (64, 10)
        assert targets.shape == (64,)

    def test_a_loss_that_is_not_finite_is_one_sentence_and_leaves_nothing(self, tmp_path):
        with pytest.raises(UserError, match=r"The loss became nan.*lower optimizer\.lr"):
            self.run(tmp_path, "optimizer=sgd", "optimizer.lr=1e30")
        assert not list(tmp_path.iterdir())

    def test_a_batch_larger_than_the_data_is_refused_and_leaves_nothing(self, tmp_path):
        with pytest.raises(UserError, match=r"data\.batch_size=9999"):
            self.run(tmp_path, "data.batch_size=9999")
        assert not list(tmp_path.iterdir())

    def test_weights_of_another_model_are_refused(self, tmp_path):
        run, _ = self.run(tmp_path)
        checkpoint = find_checkpoint(run, "best") / "model.safetensors"
        with pytest.raises(UserError, match="another model"):
            self.run(tmp_path / "other", "model=resnet18", f"model.weights={checkpoint.as_posix()}")
        with pytest.raises(UserError, match="another model"):
            predict(load_config(["model=resnet18"], base=run / "config.yaml"), find_checkpoint(run, "best"), "test")

    def test_every_loss_that_can_be_chosen_can_be_built(self):
        names = [name for name in option_names("loss") if option("loss", name, self.framework).tasks != ["tabular"]]
        assert "cross_entropy" in names
        for name in names:
            cfg = OmegaConf.create({"framework": self.framework, "loss": option("loss", name, self.framework)})
            assert callable(build_loss(cfg, np.array([3, 2, 1])))

    def test_weights_of_an_earlier_run_are_the_start_of_the_next_which_need_not_train(self, tmp_path):
        run, first = self.run(tmp_path)
        file = (find_checkpoint(run, "last") / "model.safetensors").as_posix()
        untrained = train_run(self.configure(tmp_path / "next", f"model.weights={file}", "trainer.max_epochs=0"))
        second = load_weights(find_checkpoint(untrained, "best") / "model.safetensors")[0]
        assert all(np.array_equal(first[name], second[name]) for name in first)
        (before,), (row,) = read_rows(run / "metrics.jsonl"), read_rows(untrained / "metrics.jsonl")
        assert (row["epoch"], row["val/accuracy"]) == (0, pytest.approx(before["val/accuracy"]))
        assert read_json(untrained / "run.json")["status"] == "finished"
        assert "Not trained" in (untrained / "report.html").read_text("utf-8")

    def test_eval_and_test_scripts_print_their_split(self, tmp_path, capfd):
        run, _ = self.run(tmp_path, "data.image_size=32")
        assert newest_run(tmp_path) == run
        capfd.readouterr()
        for script, split in ((scripts.eval, "val"), (scripts.test, "test")):
            script.main([str(run), "checkpoint=last", "data.batch_size=512"])
            printed, warned = capfd.readouterr()
            assert printed.startswith(f"{split} split, epoch=001")
            assert not warned
        own = {name: (run / name).read_bytes() for name in ("evaluation-test.json", "predictions-test.csv")}
        scripts.test.main([str(run), "--tta"])  # a mirrored digit is none, so each is shifted by a pixel
        assert "views: as it is, 1 px right, 1 px left, 1 px down, 1 px up\n" in capfd.readouterr().out
        assert own == {name: (run / name).read_bytes() for name in own}, "the run's own scores stand beside"
        assert 0 <= read_json(run / "evaluation-test-tta.json")["accuracy"] <= 1
        assert "Test split, in several views" in (run / "report.html").read_text("utf-8")
        with (run / "predictions-test-tta.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        predictor = load_run(run).predictor
        predictor.use_views()
        images = load_run(run).experiment.split("test").images.get(np.arange(len(rows)))
        found = predictor.predict(list(images))
        assert [row["predicted"] for row in rows] == [each["class"] for each in found]
        assert [float(row["score"]) for row in rows] == pytest.approx([each["score"] for each in found], abs=1e-5)
        with pytest.raises(UserError, match="Images of 8 pixels have one view"):
            scripts.eval.main([str(run), "--tta", "data.image_size=8"])

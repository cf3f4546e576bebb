"""Training on tables; test_tabular_lightning.py and test_tabular_paddle.py run it in their framework."""

import json
from pathlib import Path

import numpy as np
import pytest

from src import trainers
from src.datasets import build_dataset
from src.datasets.tabular import table_file
from src.datasets.tabular.preprocessing import from_json
from src.evaluation import evaluate
from src.models import weights
from src.trainers.checkpoints import find
from src.utils.config import load_config
from src.utils.run import Run
from tests.internals.tables import mixed_config

SEEDS = (0, 1, 2, 3, 4)


class TableTests:
    """Subclasses name the framework."""

    framework: str

    def train(self, cfg) -> Path:
        """Train and return the run's folder."""
        with Run(cfg) as run:
            trainers.load(self.framework).fit(cfg, run)
        return run.path

    def keys(self, folder: Path, *overrides: str) -> list[str]:
        return [f"framework={self.framework}", f"output_dir={folder.as_posix()}", "tracker=none", *overrides]

    def test_breast_cancer_is_told_with_96_percent_accuracy(self, tmp_path):
        scores = []
        for seed in SEEDS:  # a mean: one of the 86 test rows is 1.2 percent
            cfg = load_config(["task=tabular", *self.keys(tmp_path, f"seed={seed}")])
            scores.append(evaluate(cfg, self.train(cfg), ["test"])["test"]["accuracy"])
        print(f"breast cancer, {self.framework}: {[round(score, 3) for score in scores]}")
        assert np.mean(scores) >= 0.96

    def test_house_values(self, tmp_path):
        cfg = load_config(["task=tabular_regression", *self.keys(tmp_path, "trainer.max_epochs=8")])
        run = self.train(cfg)
        scores = evaluate(cfg, run, ["test"])["test"]
        assert scores["r2"] > 0.75
        assert scores["rmse"] < 0.5, "in 100,000 dollars"
        assert {path.name for path in (run / "pictures").glob("*.png")} >= {
            "test-predictions.png",
            "training-images.png",
        }

    @pytest.mark.parametrize("resample", ["none", "smote"])
    def test_a_checkpoint_keeps_how_rows_are_encoded(self, tmp_path, resample):
        overrides = ["data.batch_size=16", "optimizer.lr=0.01", f"data.resample={resample}"]
        cfg = mixed_config(tmp_path, *self.keys(tmp_path, *overrides))
        run = self.train(cfg)
        checkpoint = find(run, "best")
        metadata = weights.load(checkpoint / "model.safetensors")[1]
        test = build_dataset(cfg, "test")
        rows = table_file.read(cfg.data).take(test.ids)
        np.testing.assert_array_equal(from_json(metadata["preprocessing"]).transform(rows), test.images.values)
        assert json.loads(metadata["classes"]) == ["no", "yes"]
        assert evaluate(cfg, run, ["test"])["test"]["accuracy"] > 0.8

"""Detection and segmentation in Lightning: whole runs, awkward data, mistakes, and what only Lightning can."""

import numpy as np
import pytest

from scene_training import SCENE_TASKS, SceneTrainingTests
from src.kit.run import read_json, read_rows
from src.kit.training import Experiment, evaluate_run


class TestSceneTrainingLightning(SceneTrainingTests):
    framework = "lightning"

    @pytest.mark.parametrize("task", SCENE_TASKS)
    def test_half_precision_trains(self, tmp_path, task):
        run, _ = self.fit(tmp_path, task, "trainer.precision=bf16-mixed")
        assert np.isfinite(read_rows(run / "metrics.jsonl")[0]["train/loss"])

    def test_a_librarys_model_trains_and_is_evaluated(self, tmp_path):
        overrides = ["model=retinanet_resnet18", "loss=network"]
        run, _ = self.fit(tmp_path, "detection", *overrides)
        evaluate_run(Experiment(self.configure(tmp_path, "detection", *overrides)), run, ["val"])
        assert 0 <= read_json(run / "evaluation-val.json")["map"] <= 1
        assert (run / "pictures" / "val-samples.png").is_file()

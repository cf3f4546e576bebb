"""Detection and segmentation in Lightning: whole runs, awkward data, mistakes, and what only Lightning can."""

import numpy as np
import pytest

from scene_training import SCENE_TASKS, SceneTrainingTests
from src.kit.run import read_rows


class TestSceneTrainingLightning(SceneTrainingTests):
    framework = "lightning"

    @pytest.mark.parametrize("task", SCENE_TASKS)
    def test_half_precision_trains(self, tmp_path, task):
        run, _ = self.fit(tmp_path, task, "trainer.precision=bf16-mixed")
        assert np.isfinite(read_rows(run / "metrics.jsonl")[0]["train/loss"])

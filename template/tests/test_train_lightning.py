"""Training in Lightning: what holds for every framework, and what only Lightning can."""

import json

import numpy as np
import pytest

from src.kit.errors import UserError
from tests.training import TrainingTests


class TestTrainLightning(TrainingTests):
    framework = "lightning"

    def test_bf16_changes_the_arithmetic(self, tmp_path):
        _, full = self.run(tmp_path)
        run, mixed = self.run(tmp_path, "trainer.precision=bf16-mixed")
        assert any(not np.array_equal(full[name], mixed[name]) for name in full)
        assert np.isfinite(json.loads((run / "metrics.jsonl").read_text("utf-8"))["val/loss"])

    @pytest.mark.parametrize(
        ("override", "said"),
        [
            ("trainer.precision=16-mixed", "needs a GPU"),
            ("trainer.accelerator=gpu", "sees no GPU"),
            ("trainer.num_nodes=2", "started from outside"),
        ],
    )
    def test_what_this_machine_cannot_do_is_refused(self, tmp_path, override, said):
        import torch

        if torch.cuda.is_available():
            pytest.skip("this machine has a GPU")
        with pytest.raises(UserError, match=said):
            self.run(tmp_path, override)
        assert not list(tmp_path.iterdir())

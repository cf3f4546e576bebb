"""What must hold for training on changed images in every framework; test_augment_{lightning,paddle}.py run it."""

import json

import numpy as np
import pytest

from tests.training import TrainingTests

CHANGES = {
    "none": [],
    "basic": ["data.augment=basic"],
    "advanced": ["data.augment=advanced"],
    "mixup": ["data.mixup_alpha=0.2"],
    "cutmix": ["data.cutmix_alpha=1"],
    "sizes": ["data.sizes=[8,9,10]"],
    "all": ["data.augment=advanced", "data.mixup_alpha=0.2", "data.cutmix_alpha=1", "data.sizes=[8,10]"],
    "weighted": ["data.sampler=weighted"],
}


class AugmentedTraining(TrainingTests):
    """Subclasses name the framework; of what they inherit only `run` is used."""

    __test__ = False

    def learn(self, folder, name: str) -> None:
        keys = ["trainer.max_epochs=4", "trainer.limit_train_batches=1.0", "optimizer.lr=0.01"]
        path, _ = self.run(folder, *keys, *CHANGES[name])
        rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text("utf-8").splitlines()]
        assert rows[-1]["train/loss"] < rows[0]["train/loss"]
        assert rows[-1]["val/accuracy"] > 0.75, name

    def repeat(self, folder) -> None:
        _, plain = self.run(folder)
        for name in ("basic", "advanced", "mixup", "cutmix", "sizes", "weighted"):
            results = [self.run(folder, *CHANGES[name], f"data.num_workers={workers}")[1] for workers in (0, 2)]
            assert all(np.array_equal(results[0][key], results[1][key]) for key in plain), name
            assert any(not np.array_equal(results[0][key], plain[key]) for key in plain), name


every_change = pytest.mark.parametrize("name", CHANGES)

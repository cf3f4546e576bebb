"""A run of one framework is the start of the other's, with other classes."""

import numpy as np
import pytest

from scene_training import TINY, write_digit_scenes
from src.kit.config.compose import load_config
from src.kit.run import Run
from src.kit.training import find_checkpoint
from src.kit.weights import load_weights
from tests.support import fit

CASES = {"detection": "one_to_many.2.score.4", "segmentation": "classify"}
WAYS = [("lightning", "paddle"), ("paddle", "lightning")]


@pytest.mark.parametrize("task", CASES)
@pytest.mark.parametrize("frameworks", WAYS, ids=" to ".join)
def test_the_other_framework_goes_on_with_other_classes(tmp_path, task, frameworks):
    root = write_digit_scenes(tmp_path / "data")
    keys = [f"task={task}", f"data.root={root.as_posix()}", f"output_dir={tmp_path.as_posix()}", *TINY]
    states, changes = [], []
    for framework in frameworks:
        cfg = load_config([f"framework={framework}", *keys, *changes])
        with Run(cfg) as run:
            fit(cfg, run)
        file = find_checkpoint(run.path, "last") / "model.safetensors"
        states.append(load_weights(file)[0])
        changes = ["data.classes=['3','7']", f"model.weights={file.as_posix()}", "optimizer.lr=1e-7"]
    before, after = states
    assert CASES[task] in (run.path / "train.log").read_text("utf-8")
    same = [name for name in after if "running" not in name and before[name].shape == after[name].shape]
    assert len(same) > 0.8 * len([name for name in after if "running" not in name])
    assert 0 < max(np.abs(after[name] - before[name]).max() for name in same) < 1e-5

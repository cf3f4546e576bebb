"""A GPU is not made to wait in Paddle either: no training step of the project's own networks asks for a value."""

from collections import Counter
from pathlib import Path
from typing import Any

import paddle
import pytest

from scene_training import TINY, write_digit_scenes
from src.kit.config import load_config
from src.kit.paddle.inspection import PaddleLayers
from src.kit.run import Run
from src.trainers.paddle import Model
from tests.support import fit

# what fetches values from the device, or a number of them; Paddle's operations themselves cannot be watched
ASKING = ("numpy", "item", "tolist", "nonzero", "masked_select", "unique", "__bool__", "__float__", "__int__")
KEYS = ["framework=paddle", *TINY, "trainer.accelerator=cpu", "trainer.ema=0.9", "trainer.gradient_clip_val=1.0"]
SCENES = [*KEYS, "data.batch_size=2"]
OWN = {
    "small_cnn": [key for key in KEYS if not key.startswith("data.")],
    "deeplab": [*SCENES, "task=segmentation", "loss.focal=1.0", "loss.class_weights=balanced", "model.width=16"],
    "yolov10n": [*SCENES, "task=detection"],
}


@pytest.mark.parametrize("name", sorted(OWN))
def test_no_step_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    keys = [*OWN[name], f"output_dir={tmp_path.as_posix()}"]
    if name != "small_cnn":
        keys.append(f"data.root={write_digit_scenes(tmp_path / 'digit_scenes').as_posix()}")
    asked: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}  # within the second step, and elsewhere
    steps: list[bool] = []

    def watch(method: str) -> None:
        own = getattr(paddle.Tensor, method)

        def called(*arguments: Any, **options: Any) -> Any:
            asked[steps == [True, False, True]][method] += 1
            return own(*arguments, **options)

        monkeypatch.setattr(paddle.Tensor, method, called)

    def train(*arguments: Any) -> Any:
        steps.append(True)
        result = own_step(*arguments)
        steps.append(False)
        return result

    def on_gpu(self: Any, *arguments: Any) -> None:
        start(self, *arguments)
        self.on_cpu = False  # there a loss is looked at, as that waits for nothing

    own_step, start = Model.train_batch, PaddleLayers.__init__
    monkeypatch.setattr(Model, "train_batch", train)
    monkeypatch.setattr(PaddleLayers, "__init__", on_gpu)
    monkeypatch.setattr(PaddleLayers, "device_bytes", lambda self: 0)
    for method in ASKING:
        watch(method)
    with Run(load_config(keys)) as run:
        fit(load_config(keys), run)
    assert len(steps) == 4
    assert asked[False]["tolist"], "the losses are fetched in the end"
    assert not asked[True]

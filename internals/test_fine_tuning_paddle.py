"""Fine-tuning to other classes in Paddle."""

import paddle

from fine_tuning import FineTuningTests


class TestFineTuningPaddle(FineTuningTests):
    framework = "paddle"
    mask_rcnn = frozenset({"box.score", "box.offsets", "mask.classify"})

    def seed(self) -> None:
        paddle.seed(0)

"""Training in Paddle: what holds for every framework, and what Paddle refuses."""

import pytest

from src.kit.errors import UserError
from tests.training import TrainingTests


class TestTrainPaddle(TrainingTests):
    framework = "paddle"

    @pytest.mark.parametrize(
        ("override", "said"),
        [
            ("trainer.precision=bf16-mixed", r"no trainer\.precision=bf16-mixed on a CPU"),
            ("trainer.precision=16-mixed", r"no trainer\.precision=16-mixed on a CPU"),
            ("trainer.accelerator=gpu", "sees no GPU"),
            ("trainer.accelerator=mps", "no trainer.accelerator=mps"),
            ("trainer.num_nodes=2", "paddle.distributed.launch"),
        ],
    )
    def test_what_paddle_or_this_machine_cannot_do_is_refused(self, tmp_path, override, said):
        import paddle

        if paddle.device.is_compiled_with_cuda():
            pytest.skip("this Paddle is built for GPUs")
        with pytest.raises(UserError, match=said):
            self.run(tmp_path, override)
        assert not list(tmp_path.iterdir())

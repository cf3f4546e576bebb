"""The interface for notebooks in Paddle, and `paddle.Model` as its users know it."""

import numpy as np
import paddle

from interface import InterfaceTests
from src.kit.training import Experiment
from src.trainers.paddle import Model, load_batches


class TestInterfacePaddle(InterfaceTests):
    framework = "paddle"

    def fill_memory(self):
        paddle.empty([2**47])

    def test_a_plain_model_fits(self, tmp_path):
        experiment = Experiment(self.configure(tmp_path, "optimizer.lr=0.01"))
        paddle.seed(0)
        train, val = load_batches(experiment)
        model = Model(experiment, experiment.build_network())
        model.fit(train, val, epochs=3, verbose=0)
        images, targets = next(iter(experiment.build_loader("test")))
        model.network.eval()
        with paddle.no_grad():
            logits = model.network(paddle.to_tensor(images)).numpy()
        assert (np.argmax(logits, axis=1) == targets).mean() > 0.8

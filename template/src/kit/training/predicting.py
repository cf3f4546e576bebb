"""Predictions with a run's weights, which need neither its data nor an evaluation."""

from pathlib import Path

import numpy as np

from src.kit.config import load_config
from src.kit.inference import Predictor
from src.kit.training.cards import find_card
from src.kit.training.checkpoints import find_checkpoint
from src.kit.training.evaluation import load_backend
from src.kit.training.experiment import Experiment


class RunPredictor(Predictor):
    """The network of a run, computed by its framework."""

    def __init__(self, run: Path, checkpoint: str = "best") -> None:
        """`checkpoint`: best, last or a checkpoint's name.

        Raises:
            UserError: no such run or checkpoint.
        """
        folder = find_checkpoint(run, checkpoint)
        super().__init__(find_card(run, folder))
        cfg = load_config([], base=run / "config.yaml")
        self.backend = load_backend(cfg.framework)
        self.network = self.backend.load_network(Experiment.from_card(cfg, self.card), folder)

    def compute(self, arrays: np.ndarray) -> np.ndarray:
        outputs: np.ndarray = self.backend.predict_images(self.network, arrays)
        return outputs

"""TensorBoard event files in `<run>/tensorboard`; look at all runs with `tensorboard --logdir outputs`."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from tensorboardX import SummaryWriter

from src.kit.trackers.base import Tracker


class TensorBoardTracker(Tracker):
    """Writes with tensorboardX, which needs neither TensorFlow nor PyTorch."""

    def __init__(self, cfg: DictConfig, run_dir: Path) -> None:
        self.writer = SummaryWriter(str(run_dir / "tensorboard"), flush_secs=10)
        self.writer.add_text("config", f"```\n{OmegaConf.to_yaml(cfg, resolve=True)}\n```")

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)

    def log_picture(self, name: str, path: Path) -> None:
        with Image.open(path) as image:
            self.writer.add_image(name, np.asarray(image.convert("RGB")), dataformats="HWC")

    def close(self) -> None:
        self.writer.close()

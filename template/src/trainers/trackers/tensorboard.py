"""TensorBoard event files in `<run>/tensorboard`. View all runs with `tensorboard --logdir outputs`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf
from PIL import Image

from src.kit.trackers import Tracker, flatten, without_import

with without_import("torch"):  # tensorboardX takes its tensors where it finds it, and nobody hands it any
    from tensorboardX import SummaryWriter
    from tensorboardX.proto.summary_pb2 import Summary
    from tensorboardX.summary import hparams


class TensorBoardTracker(Tracker):
    """Writes with tensorboardX, which needs neither TensorFlow nor PyTorch."""

    def __init__(self, writer: SummaryWriter, cfg: Mapping[str, Any]) -> None:
        self.writer, self.cfg = writer, cfg

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        for name, value in metrics.items():
            self.writer.add_scalar(name if "/" in name else f"train/{name}", value, step)

    def log_picture(self, name: str, path: Path) -> None:
        with Image.open(path) as image:
            size = {"width": image.width, "height": image.height, "colorspace": len(image.getbands())}
        picture = Summary.Image(**size, encoded_image_string=path.read_bytes())  # as it is: nothing is drawn again
        self.writer.file_writer.add_summary(Summary(value=[Summary.Value(tag=name, image=picture)]))

    def log_histograms(self, values: Mapping[str, np.ndarray], step: int) -> None:
        for name, each in values.items():
            if np.isfinite(each).all():
                self.writer.add_histogram(name, each, step, bins="auto" if len(each) < 8 else 30)

    def log_results(self, results: Mapping[str, float], files: Sequence[Path]) -> None:
        plain = {key: value for key, value in flatten(self.cfg).items() if isinstance(value, bool | int | float | str)}
        for part in hparams(plain, dict(results)):  # the page HPARAMS
            self.writer.file_writer.add_summary(part)
        for name, value in results.items():
            self.writer.add_scalar(name, value)

    def close(self, status: str = "finished") -> None:
        self.writer.close()


def build(run_dir: Path, cfg: dict[str, Any]) -> Tracker:
    """Write the run's configuration and metrics to `<run>/tensorboard`."""
    writer = SummaryWriter(str(run_dir / "tensorboard"), flush_secs=10)
    writer.add_text("config", f"```\n{OmegaConf.to_yaml(cfg)}\n```")
    return TensorBoardTracker(writer, cfg)

"""One training from its configuration to its report, and the finished run for notebooks and scripts."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from src.kit.config import UserError
from src.kit.loading import decode, resize
from src.kit.run import Run, read_json, read_rows
from src.kit.training.checkpoints import (
    compare_splits,
    describe_splits,
    find_checkpoint,
    refuse_other_data,
    write_splits,
)
from src.kit.training.evaluation import evaluate_run, load_backend, load_experiment, load_trainer
from src.kit.training.experiment import Experiment

FitMemory = Callable[[Experiment], tuple[DictConfig, str]]


def train_run(
    cfg: DictConfig, resumed: Path | None = None, repeated: Path | None = None, fit_memory: FitMemory | None = None
) -> Path:
    """Train, evaluate on the validation and test splits, write the report, and return the run folder.

    Args:
        resumed: the run folder to continue in.
        repeated: the run folder to repeat, for a warning if the samples differ.
        fit_memory: returns the configuration to train with and a note, before the framework loads.

    Raises:
        UserError: whatever is wrong with data, configuration or machine.
    """
    checkpoint = find_checkpoint(resumed, "last") if resumed else None
    if resumed and read_json(resumed / "run.json").get("status") == "finished":
        raise UserError(
            f"{resumed} has finished: repeat it with --from {resumed}, or evaluate it with scripts/test.py."
        )
    experiment = Experiment(cfg)
    splits = describe_splits(experiment)  # missing data is reported before a framework loads
    if resumed:
        refuse_other_data(splits, resumed)
    note = ""
    if fit_memory and not resumed:
        experiment.cfg, note = fit_memory(experiment)
    trainer = load_trainer(cfg.framework)
    with Run(experiment.cfg, resumed) as run:
        if note:
            run.log.warning(note)
        if run.main:
            write_splits(splits, run.path)
            if repeated and (changed := compare_splits(splits, repeated)):
                run.log.warning("The samples differ from those of %s: %s.", repeated, ", ".join(changed))
        trainer.fit(experiment, run, checkpoint)
        if run.main:
            finish(experiment, run, ["val", "test"])
    return run.path


def finish(experiment: Experiment, run: Run, splits: Sequence[str]) -> None:
    """Record the end of the training, evaluate it, and hand the pictures to the tracker."""
    run.update(status="finished", duration_s=run.seconds())
    evaluate_run(experiment, run.path, splits)
    for picture in sorted((run.path / "pictures").glob("*.png")):
        run.tracker.log_picture(picture.stem, picture)


class TrainedRun:
    """A run folder. `run.metrics["test"]["accuracy"]`, `run.history[-1]["val/loss"]`, `run.predict(images)`."""

    def __init__(self, path: str | Path) -> None:
        """Raises UserError if `path` holds no checkpoint."""
        self.path = Path(path)
        self.checkpoint = find_checkpoint(self.path, "best")

    @cached_property
    def experiment(self) -> Experiment:
        """The run's data, task and network."""
        return load_experiment(self.path)

    @property
    def cfg(self) -> DictConfig:
        """The run's merged configuration."""
        return self.experiment.cfg

    @property
    def metrics(self) -> dict[str, Any]:
        """Split -> its full evaluation."""
        return {name: read_json(self.path / f"evaluation-{name}.json") for name in ("val", "test")}

    @property
    def history(self) -> list[dict[str, Any]]:
        """One row for each epoch."""
        return read_rows(self.path / "metrics.jsonl")

    @cached_property
    def network(self) -> Any:
        """The network with its best weights, in evaluation mode: a `torch.nn.Module` or a `paddle.nn.Layer`."""
        return load_backend(self.cfg.framework).load_network(self.experiment, self.checkpoint)

    def predict(self, images: Any, batch_size: int = 64) -> list[Any]:
        """Predict images with the best weights, prepared as in training.

        Args:
            images: files (a path or a list of paths), or uint8 arrays (H, W, C) or (N, H, W, C).
            batch_size: images computed at once.

        Returns:
            For each image what the task makes of the outputs, such as {"class": "cat", "score": 0.93}.

        Raises:
            UserError: a file that cannot be read, or a task without images.
        """
        if "mean" not in self.cfg.data:
            raise UserError(f"task={self.cfg.task} has no images to predict: use scripts/test.py with your table.")
        arrays = [self.prepare(image) for image in as_list(images)]
        backend, predictions = load_backend(self.cfg.framework), []
        for start in range(0, len(arrays), batch_size):
            outputs = backend.predict_images(self.network, np.stack(arrays[start : start + batch_size]))
            predictions += self.experiment.task.predictions(outputs, self.experiment.classes)
        return predictions

    def prepare(self, image: Any) -> np.ndarray:
        """float32 (C, H, W), resized and normalised as in training."""
        height, width, channels = self.experiment.input_shape
        pixels = image if isinstance(image, np.ndarray) else decode(Path(image), height)
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        if pixels.shape[-1] != channels:
            grey = pixels[..., :3].mean(axis=-1, keepdims=True).round().astype(np.uint8)
            pixels = grey if channels == 1 else np.repeat(grey, channels, axis=-1)
        planes = resize(np.ascontiguousarray(pixels.transpose(2, 0, 1))[None], (height, width))[0]
        mean, std = (np.array(self.cfg.data[key], np.float32)[:, None, None] for key in ("mean", "std"))
        return (planes.astype(np.float32) / 255 - mean) / std


def as_list(images: Any) -> Sequence[Any]:
    """One image or several -> a list of images."""
    single = isinstance(images, (str, Path)) or (isinstance(images, np.ndarray) and images.ndim < 4)
    return [images] if single else list(images)


def train(cfg: DictConfig) -> TrainedRun:
    """Train a configuration, as `scripts/train.py` does, and return its run."""
    return TrainedRun(train_run(cfg))


def evaluate(run: TrainedRun | str | Path, split: str = "test", checkpoint: str = "best") -> dict[str, Any]:
    """Evaluate a run on "val" or "test", write the scores into its folder, and return them."""
    run = run if isinstance(run, TrainedRun) else TrainedRun(run)
    return evaluate_run(run.experiment, run.path, [split], checkpoint)[split]


def load_run(path: str | Path) -> TrainedRun:
    """Open a run folder: `load_run("outputs/small_cnn-digits-20260101-120000").predict("photo.jpg")`."""
    return TrainedRun(path)

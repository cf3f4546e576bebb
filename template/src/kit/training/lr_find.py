"""Find a learning rate: train a little while the rate rises, and see where the loss falls fastest.

The range test of Smith 2017 (arXiv 1506.01186) with a rate that grows by a factor, as fastai does it."""

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from omegaconf import DictConfig, OmegaConf

from src.kit.config import UserError
from src.kit.ranks import find_place
from src.kit.run import Progress, Run, new_folder
from src.kit.storage import write_csv
from src.kit.trackers import Tracker
from src.kit.training.evaluation import load_trainer, own_engine
from src.kit.training.experiment import Experiment

STEPS = 100
LOWEST, HIGHEST = 1e-6, 10.0  # learning rates
WIDTH = 8  # steps to both sides that a smoothed loss takes part in
ENOUGH = 4.0  # the test ends when the loss is this many times its lowest
SKIPPED = 10  # first steps, whose losses say more about the batch than about the rate
# what would disturb the test or has no use in it
PLAIN = {
    "batch_growth": {"every_n_epochs": None},
    "checkpoint": {"every_n_steps": None},
    "devices": 1,
    "early_stopping": {"patience": None},
    "ema": None,
    "swa": None,
    "folds": None,
    "inspect": {"every_n_steps": None},
    "limit_val_batches": 1,
}


class Rising:
    """A schedule that multiplies the learning rate at each step, from LOWEST to HIGHEST."""

    def lr(self, step: float) -> float:
        """Return the learning rate of optimizer step `step`, counted from 0."""
        return float(LOWEST * (HIGHEST / LOWEST) ** min(1.0, step / (STEPS - 1)))

    def epoch_end(self, loss: float) -> None:
        """It does not depend on losses."""

    def state_dict(self) -> dict[str, float]:
        """There is no state."""
        return {}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """There is no state."""


class Enough(Exception):
    """The loss has risen so far that higher rates need not be tried."""


class Losses(Tracker):
    """Records the loss at each rate, in place of a tracker."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.losses: list[float] = []

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        if "train/loss_step" not in metrics:
            return
        self.rates.append(metrics["lr"])
        self.losses.append(metrics["train/loss_step"])
        curve = smooth(self.losses)
        if len(self.rates) >= STEPS or (len(curve) > SKIPPED and curve[-1] > ENOUGH * curve.min()):
            raise Enough


def smooth(losses: Sequence[float]) -> np.ndarray:
    """Means of the losses with weights that fall to both sides, so that the curve does not lag: (N,)."""
    weights = WIDTH + 1.0 - np.abs(np.arange(-WIDTH, WIDTH + 1))
    clipped = np.minimum(losses, ENOUGH * losses[0])  # what diverges would hide all before it
    ends = slice(WIDTH, len(losses) + WIDTH)
    sums, shares = (np.convolve(values, weights)[ends] for values in (clipped, np.ones(len(losses))))
    return np.asarray(sums / shares)


def steepest(rates: Sequence[float], losses: Sequence[float]) -> float:
    """The rate at which the smoothed loss falls fastest over the logarithm of the rate.

    Raises:
        UserError: it falls nowhere.
    """
    curve = smooth(losses)
    lowest = int(curve.argmin())
    slopes = np.gradient(curve, np.log(rates))[SKIPPED : lowest + 1] if len(curve) > SKIPPED + 1 else np.array([])
    if not len(slopes) or slopes.min() >= 0:
        raise UserError("The loss fell at no learning rate: look at the data with scripts/show_data.py.")
    return float(rates[SKIPPED + int(slopes.argmin())])


def find_rate(cfg: DictConfig) -> Path:
    """Try rising rates on a fresh network, print the one at which the loss falls fastest, and return a folder.

    The folder has lr-find.png and lr-find.csv (lr, loss, smoothed).

    Raises:
        UserError: a model without learning rates, several processes, or a loss that falls nowhere.
    """
    if own_engine(cfg):
        raise UserError(f"model={cfg.model.name} has no learning rate to find.")
    if find_place():
        raise UserError("--lr-find trains in one process: start it without a launcher.")
    seen = Losses()
    with TemporaryDirectory() as scratch:
        changes = {"trainer": PLAIN, "tracker": {"name": "none"}, "log_every_n_steps": 1, "output_dir": scratch}
        cfg, output = OmegaConf.merge(cfg, changes), cfg.output_dir
        experiment = Experiment(cfg)
        batches = math.ceil(len(experiment.build_loader("train")) / cfg.trainer.accumulate_grad_batches)
        experiment.cfg.trainer.max_epochs = math.ceil(STEPS / batches) + 1
        experiment.schedule = Rising()
        with Run(experiment.cfg) as run:
            run.tracker, run.progress = seen, Progress(shown=False)
            try:
                load_trainer(cfg).fit(experiment, run)
            except Enough:
                pass
            except UserError as error:
                if not seen.losses or not str(error).startswith("The loss became"):
                    raise
    rate = steepest(seen.rates, seen.losses)
    folder = new_folder(Path(output), f"{cfg.name}-lr-find")
    curve = smooth(seen.losses)
    rows = zip(seen.rates, seen.losses, curve.tolist(), strict=True)
    write_csv(folder / "lr-find.csv", [{"lr": lr, "loss": loss, "smoothed": mean} for lr, loss, mean in rows])
    draw_rates(seen.rates, seen.losses, curve, rate, folder / "lr-find.png")
    sys.stdout.write(f"The loss falls fastest at optimizer.lr={rate:.2g}.\npicture: {folder / 'lr-find.png'}\n")
    return folder


def draw_rates(rates: Sequence[float], losses: Sequence[float], curve: np.ndarray, chosen: float, path: Path) -> Path:
    """Draw the losses, their smoothed curve and the chosen rate."""
    from src.kit.report import BLUE, FAINT, VERMILLION, new_figure, save_figure

    figure = new_figure(6.4, 4.2)
    axes = figure.add_subplot()
    axes.plot(rates, losses, color=FAINT, linewidth=0.8, label="each batch")
    axes.plot(rates, curve, color=BLUE, linewidth=2, label="smoothed")
    axes.axvline(chosen, color=VERMILLION, label=f"falls fastest: {chosen:.2g}")
    axes.set_xscale("log")
    ticks = [10.0**power for power in range(round(math.log10(LOWEST)), round(math.log10(max(rates))) + 1)]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_ylim(min(losses), max(curve[0] * 1.3, min(losses) * 1.01))
    axes.set_title("Loss at rising learning rates")
    axes.set_xlabel("learning rate")
    axes.grid(axis="y")
    axes.legend()
    return save_figure(figure, path)

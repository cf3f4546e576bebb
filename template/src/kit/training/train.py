"""One training from its configuration to its report."""

from collections.abc import Callable, Sequence
from pathlib import Path

from omegaconf import DictConfig

from src.kit.config import UserError
from src.kit.run import Run, read_json
from src.kit.training.backends import load_trainer
from src.kit.training.checkpoints import find_checkpoint
from src.kit.training.evaluation import evaluate_run
from src.kit.training.experiment import Experiment
from src.kit.training.split_record import compare_splits, describe_splits, refuse_other_data, write_splits

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

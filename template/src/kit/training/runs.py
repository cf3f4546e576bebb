"""One training or cross-validation from its configuration to its report, and the finished run for notebooks."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from src.kit.catalog import build_dataset
from src.kit.config import UserError, load_config, passwords, write_config
from src.kit.errors import Stopped
from src.kit.ranks import Place, Ranks, find_place, is_main_process, refuse_contradiction, say_if_waiting
from src.kit.report import collect_folds, write_fold_report
from src.kit.run import Run, describe_run, has_checkpoint, new_folder, read_json, read_rows, write_json
from src.kit.storage import lock_folder, read_intact, sort_paths
from src.kit.training.checkpoints import Checkpoints, find_checkpoint, find_resumable
from src.kit.training.distillation import check_teacher
from src.kit.training.evaluation import (
    evaluate_run,
    evaluate_views,
    load_backend,
    load_experiment,
    load_trainer,
    own_engine,
    say_report,
)
from src.kit.training.experiment import Experiment
from src.kit.training.exports import RunPredictor, export_run
from src.kit.training.splits import compare_splits, describe_split, describe_splits, refuse_other_data, write_splits
from src.kit.weights import save_weights

FitMemory = Callable[[Experiment], tuple[DictConfig, str]]
TRAIN = Path(__file__).resolve().parents[3] / "scripts" / "train.py"


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
    with join_ranks(cfg) as ranks:
        if resumed is None and (unfinished := ranks.agree(lambda: find_restarted(cfg, ranks.place))):
            resumed, cfg = unfinished, load_config([], base=unfinished / "config.yaml")
        return train_rank(ranks, cfg, resumed, repeated, fit_memory)


@contextmanager
def join_ranks(cfg: DictConfig) -> Iterator[Ranks]:
    """Connect the processes that a launcher has started, before anything can go wrong in one of them."""
    if not (place := find_place()):
        yield Ranks()
        return
    if own_engine(cfg):
        raise UserError(f"model={cfg.model.name} trains in one process: start it without a launcher.")
    refuse_contradiction(cfg.trainer, place)
    waiting = say_if_waiting(place)
    with load_backend(cfg).join(cfg, place) as exchange, Ranks(place, exchange) as ranks, ranks.together():
        waiting.cancel()
        yield ranks


def find_restarted(cfg: DictConfig, place: Place | None) -> Path | None:
    """The unfinished run of a job that its launcher has started again; None if it has no checkpoint to go on from."""
    if not (place and place.restarted):
        return None
    infos = {path.parent: read_intact(path) for path in Path(cfg.output_dir).glob("*/run.json")}
    same = [run for run, info in infos.items() if info.get("job") == place.job and info.get("status") != "finished"]
    return max(filter(has_checkpoint, same), default=None, key=lambda run: str(infos[run].get("started")))


def train_rank(
    ranks: Ranks, cfg: DictConfig, resumed: Path | None, repeated: Path | None, fit_memory: FitMemory | None
) -> Path:
    """`train_run` in one of the connected processes, or in the only one."""
    with ExitStack() as stack:
        checkpoint: Path | None = None
        notes: list[str] = []
        if resumed:
            checkpoint, notes = ranks.agree(lambda: open_again(resumed, stack))
        experiment = Experiment(cfg)
        splits = describe_splits(experiment)  # missing data is reported before a framework loads
        notes += check_teacher(experiment)
        if resumed:
            refuse_other_data(splits, resumed)
        elif fit_memory and not own_engine(cfg) and (cfg.trainer.max_epochs > 0 or cfg.data.batch_size == "auto"):
            experiment.cfg, note = fit_memory(experiment)
            notes += [note] if note else []
        trainer = load_trainer(cfg)
        run = stack.enter_context(Run(experiment.cfg, resumed))
        stack.enter_context(ranks.together())
        ranks.farewell = partial(run.update, status="failed")
        announce(experiment, run, notes)
        if run.main:
            if not resumed:
                stack.enter_context(lock_folder(run.path))
            write_splits(splits, run.path)
            if repeated and (changed := compare_splits(splits, repeated)):
                run.log.warning("The samples differ from those of %s: %s.", repeated, ", ".join(changed))
        if cfg.trainer.max_epochs > 0 or own_engine(cfg):
            trainer.fit(experiment, run, checkpoint)
            run.progress.close()
        elif run.main and not checkpoint:
            keep_untrained(experiment, run)
        if run.main:
            finish(experiment, run, ["val", "test"])
    return run.path


def announce(experiment: Experiment, run: Run, notes: Sequence[str]) -> None:
    """Say where the run goes, and what there is to know about its data."""
    dataset = experiment.split("train")
    if run.main:
        run.log.info("run: %s", run.path)
    for note in notes if run.main else ():
        run.log.warning(note)
    for sentence in [*experiment.notes, *getattr(dataset, "notes", ())]:
        run.log.info(sentence)
    for sentence in getattr(dataset, "doubts", ()):
        run.log.warning(sentence)


def keep_untrained(experiment: Experiment, run: Run) -> None:
    """Save the network as training would start it, with its scores as those of epoch 0: `trainer.max_epochs=0`."""
    backend, saving = load_backend(experiment.cfg), experiment.cfg.trainer.checkpoint
    network = backend.load_network(experiment, None)
    scores = experiment.score(backend.predict(experiment, network, "val"))
    row = {"epoch": 0, "step": 0} | {f"val/{name}": value for name, value in scores.items()}
    run.log_epoch(row)

    def save(folder: Path) -> None:
        weights = backend.weights_to_numpy(network)
        save_weights(folder / "model.safetensors", weights, experiment.metadata(network))

    checkpoints = Checkpoints(run.path / "checkpoints", saving.keep_best, saving.keep_last, experiment.task.mode)
    checkpoints.add(0, 0, row.get(experiment.task.monitor), save)


def open_again(run: Path, stack: ExitStack) -> tuple[Path, list[str]]:
    """Lock a run folder that is to be continued; return the checkpoint to go on from and what the log should say.

    Raises:
        UserError: the run has finished, another process is training in it, or no checkpoint of it is whole.
    """
    main = is_main_process()
    if main and run.is_dir():
        stack.enter_context(lock_folder(run))
    if read_intact(run / "run.json").get("status") == "finished":
        raise UserError(f"{run} has finished: repeat it with --from {run}, or evaluate it with scripts/test.py.")
    checkpoint, notes = find_resumable(run, main)
    if not (run / "splits.json").is_file():
        notes.append("splits.json is missing: nobody can tell whether the samples are those of the start.")
    return checkpoint, notes


def finish(experiment: Experiment, run: Run, splits: Sequence[str]) -> None:
    """Record the duration of the training, evaluate it, and hand scores, pictures and files to the tracker.

    The run has finished when it is evaluated: until then, --resume evaluates it.
    """
    run.update(duration_s=run.seconds())
    evaluated = evaluate_run(experiment, run.path, splits)
    say_report(run.path)
    for picture in [*sort_paths((run.path / "pictures").glob("*.png")), run.path / "model_graph.png"]:
        if picture.exists():
            run.tracker.log_picture(picture.stem, picture)
    info = read_json(run.path / "run.json")
    results = {name: float(info[name]) for name in ("parameters", "duration_s") if info.get(name)}
    for split, scores in evaluated.items():
        results |= {f"{split}/{name}": score for name, score in scores.items() if isinstance(score, float)}
    weights = find_checkpoint(run.path, "best") / "model.safetensors"
    run.tracker.log_results(results, [run.path / "report.html", run.path / "card.json", weights])


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
    def predictor(self) -> RunPredictor:
        """The best weights, ready to predict; its `card` says what they take and give."""
        return RunPredictor(self.path)

    @property
    def network(self) -> Any:
        """The network with its best weights, in evaluation mode: a `torch.nn.Module` or a `paddle.nn.Layer`."""
        return self.predictor.network

    def predict(self, inputs: Any, batch_size: int = 64) -> list[Any]:
        """Predict with the best weights; data are prepared as in training, which they need not be part of.

        Args:
            inputs: files (a path or a list of paths), uint8 arrays (H, W, C) or (N, H, W, C), or a list of a table's
                rows as mappings from columns to values.
            batch_size: samples computed at once.

        Returns:
            For each of them what the network says, such as {"class": "cat", "score": 0.93}.

        Raises:
            UserError: a file that cannot be read, or a row that lacks a column.
        """
        return self.predictor.predict(as_list(inputs), batch_size)

    def export(self, formats: Sequence[str] = ()) -> Path:
        """Write the network as ONNX and in the framework's own format into `RUN/export`, and return the folder.

        Args:
            formats: of "onnx", "torch" (Lightning) and "paddle"; none: all that the framework has.

        Raises:
            UserError: a network that cannot be exported.
        """
        return export_run(self.path, formats)[0]


def as_list(inputs: Any) -> Sequence[Any]:
    """One sample or several -> a list of samples."""
    single = isinstance(inputs, (str, Path, Mapping)) or (isinstance(inputs, np.ndarray) and inputs.ndim < 4)
    return [inputs] if single else list(inputs)


def train(cfg: DictConfig) -> TrainedRun:
    """Train a configuration, as `scripts/train.py` does, and return its run."""
    return TrainedRun(train_run(cfg))


def evaluate(
    run: TrainedRun | str | Path, split: str = "test", checkpoint: str = "best", tta: bool = False
) -> dict[str, Any]:
    """Evaluate a run on "val" or "test", write the scores into its folder, and return them.

    Args:
        tta: predict several views of each image, and average; the scores stand beside the run's own.
    """
    run = run if isinstance(run, TrainedRun) else TrainedRun(run)
    if tta:
        result = evaluate_views(run.experiment, run.path, split, checkpoint)
    else:
        result = evaluate_run(run.experiment, run.path, [split], checkpoint)[split]
    say_report(run.path)
    return result


def load_run(path: str | Path) -> TrainedRun:
    """Open a run folder: `load_run("outputs/small_cnn-digits-20260101-120000").predict("photo.jpg")`."""
    return TrainedRun(path)


def cross_validate(cfg: DictConfig, folder: Path | None = None) -> Path:
    """Train and evaluate `cfg.trainer.folds` runs `<folder>/fold-<number>-<time>`, and write folds.json and a report.

    Each fold is trained by a process of its own, so it equals the same run alone, whatever the framework and the number
    of devices. `folder` is that of a cross-validation to continue: its evaluated folds are left as they are.

    Raises:
        UserError: data without folds, a finished `folder`, or a fold that failed.
    """
    count = int(cfg.trainer.folds)
    if find_place():
        raise UserError(
            "trainer.folds starts the processes of each fold itself: run scripts/train.py without a launcher."
        )
    if folder and (folder / "folds.json").exists():
        raise UserError(f"{folder} has finished: repeat it with --from {folder}.")
    check_folds(cfg, count)
    if folder is None:
        folder = new_folder(Path(cfg.output_dir), cfg.name)
        write_config(cfg, folder / "config.yaml")
        write_json(folder / "run.json", {**describe_run(cfg), "status": "running"})
    secrets = passwords(cfg)
    try:
        runs = [train_fold(folder, number, count, secrets) for number in range(1, count + 1)]
    except Stopped:
        set_status(folder, "interrupted")
        sys.stdout.write(f"Interrupted: continue with --resume {folder}.\n")
        raise
    write_fold_report(folder, collect_folds(runs))
    set_status(folder, "finished")
    say_report(folder)
    return folder


def set_status(folder: Path, status: str) -> None:
    """Set a cross-validation's status in run.json, whatever state the file is in."""
    write_json(folder / "run.json", {**read_intact(folder / "run.json"), "status": status})


def check_folds(cfg: DictConfig, count: int) -> None:
    """Refuse data that are not divided into folds: a publisher's own validation split, or a stream."""
    folds = [OmegaConf.merge(cfg, {"data": {"fold": number, "folds": count}}) for number in (1, 2)]
    first, second = (describe_split(build_dataset(fold, "val"), Path(".")) for fold in folds)
    if first.get("sha256") == second.get("sha256"):
        raise UserError(f"data={cfg.data.name} cannot be divided into folds: leave trainer.folds out.")


def train_fold(folder: Path, number: int, count: int, secrets: Sequence[str] = ()) -> Path:
    """Return the evaluated run of one fold; train it, or continue it, if there is none yet.

    `secrets` are overrides that the saved configuration lacks.
    """
    if run := find_fold(folder, number):
        return run
    sys.stdout.write(f"fold {number} of {count}\n")
    sys.stdout.flush()
    fold = ["trainer.folds=null", f"data.fold={number}", f"data.folds={count}", f"name=fold-{number}"]
    arguments = ["--from", str(folder), f"output_dir={folder.as_posix()}", *fold]
    for path in sort_paths(folder.glob(f"fold-{number}-*")):
        if has_checkpoint(path):
            arguments = ["--resume", str(path)]
        else:
            shutil.rmtree(path)  # killed before its first checkpoint
    code = call([sys.executable, str(TRAIN), *arguments, *secrets])
    run = find_fold(folder, number)
    if code or not run:
        if not any(folder.glob("fold-*")):
            shutil.rmtree(folder)
            raise UserError(f"Fold {number} of {count} could not start, for the reason above.")
        raise UserError(f"Fold {number} of {count} failed: fix the error above, then continue with --resume {folder}.")
    return run


def call(command: Sequence[str]) -> int:
    """Run a command and return its exit code; a signal that ends this process ends the command first."""
    with subprocess.Popen(command) as process:
        try:
            return process.wait()
        except Stopped as stopped:
            with suppress(subprocess.TimeoutExpired):  # a terminal has sent Ctrl-C to both
                process.wait(5 if stopped.code == 128 + signal.SIGINT else 0)
            process.terminate()
            raise


def find_fold(folder: Path, number: int) -> Path | None:
    """The newest run of a fold that has finished: trained, evaluated, and its report written."""
    runs = [
        path for path in folder.glob(f"fold-{number}-*") if read_intact(path / "run.json").get("status") == "finished"
    ]
    return max(runs, default=None, key=lambda run: run.name)

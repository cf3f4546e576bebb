"""The search: asks the study for trials, trains them side by side, ends hopeless ones, and tells the study."""

import shlex
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

import optuna
from omegaconf import DictConfig
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from src.kit.config import UserError, load_config, passwords
from src.kit.errors import Stopped
from src.kit.hardware import Hardware, detect
from src.kit.memory import TooLarge, fit_memory
from src.kit.ranks import find_place
from src.kit.search.page import Board, write_page
from src.kit.search.space import Plan, keep_config
from src.kit.search.trials import Job, Sharing, count_gpus, hold, is_score
from src.kit.storage import replace_file
from src.kit.training import BaseTask, load_task

NAME, FILE = "search", "study.db"
POLL_S = 0.3  # from one look at the trials to the next
PAGE_S = 10.0  # from one page to the next
MOST_FAILURES = 3  # of trials in a row: then something else than their values is wrong
MOST_DEATHS = 3  # of one trial's processes, such as by the system when memory runs out
ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
NOT_FINITE = "The loss became "  # how the trainers' message begins


def run_search(plan: Plan, command: list[str], hardware: Hardware | None = None) -> Path:
    """Search until the plan's trials are done, and return the search's folder. The same plan goes on where it was.

    Args:
        command: how this was started, to be shown.
        hardware: the machine, if not this one.

    Raises:
        UserError: a mistake in the plan, no cluster, or three trials in a row that failed.
    """
    if find_place():
        raise UserError("A search starts the processes of its trials itself: run scripts/search.py without a launcher.")
    plan.check()
    cfg = load_config(plan.fixed)
    folder = Path(cfg.output_dir) / plan.folder
    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with ExitStack() as stack, storage_errors(folder):
        lock = stack.enter_context(hold(folder))
        keep_config(cfg, folder)
        search = Search(plan, cfg, folder, lock, hardware or detect(), command)
        search.work()
    return folder


@contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
    """Say in one sentence what is wrong with the study's file."""
    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        raise UserError(
            f"Cannot use {folder / FILE} ({reason}): free some space, or restore the file from a copy."
        ) from error


def open_study(folder: Path, modes: Sequence[str]) -> optuna.Study:
    """The study in the folder's SQLite file, which gets its name when it is whole.

    Raises:
        UserError: the file is gone, but not the trials' runs.
    """
    path = folder / FILE
    if not path.exists() and any(folder.glob("trial-*/")):
        raise UserError(f"{path} is gone, which knows the trials: restore it, or delete {folder} to start over.")
    if not path.exists():
        with replace_file(path) as partial:
            storage = optuna.storages.RDBStorage(f"sqlite:///{partial.as_posix()}")
            directions = [optuna.study.StudyDirection[f"{mode}imize".upper()] for mode in modes]
            optuna.create_study(study_name=NAME, storage=storage, directions=directions)
            storage.remove_session()
            storage.engine.dispose()
    storage = optuna.storages.RDBStorage(
        f"sqlite:///{path.as_posix()}", engine_kwargs={"connect_args": {"timeout": 60}}
    )
    return optuna.load_study(study_name=NAME, storage=storage)


class Search:
    """A study and the trials that are being trained."""

    def __init__(
        self, plan: Plan, cfg: DictConfig, folder: Path, lock: int | None, hardware: Hardware, command: list[str]
    ) -> None:
        self.plan, self.cfg, self.folder, self.lock = plan, cfg, folder, lock
        self.sharing = Sharing(hardware, plan.jobs, plan.on, cfg.trainer.devices, str(cfg.framework))
        self.command = command
        self.task = load_task(str(cfg.task))
        self.objectives = choose_objectives(plan, self.task)
        self.monitor, self.mode = self.objectives[0]
        self.board = Board(plan, self.objectives)
        self.study = open_study(folder, [mode for _, mode in self.objectives])
        if plan.pruner == "median":  # after a fifth of the epochs; the first ones say little
            warm_up = max(1, int(cfg.trainer.max_epochs) // 5)
            self.study.pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=warm_up)
        else:
            self.study.pruner = optuna.pruners.NopPruner()
        if plan.sampler == "grid":
            for values in plan.combinations:
                self.study.enqueue_trial(values, skip_if_exists=True)
        self.live: list[Job] = []
        self.next_page = 0.0
        self.failed: list[tuple[Job, str]] = []  # told when another trial shows that the machine is not the reason
        self.interrupted = [trial for trial in self.trials() if trial.state == TrialState.RUNNING]

    def trials(self) -> list[FrozenTrial]:
        """All trials that have begun."""
        return [trial for trial in self.study.get_trials(deepcopy=False) if trial.state != TrialState.WAITING]

    def work(self) -> None:
        """Train until there is nothing left to train; a signal ends all trials, which the next start takes up again."""
        if begun := self.trials():
            done = sum(trial.state in ENDED for trial in begun)
            self.board.say(f"Going on in {self.folder}: {done} of {self.plan.trials} trials are done.")
        try:
            with self.board:
                while self.fill():
                    time.sleep(POLL_S)
                    for job in list(self.live):
                        if self.settle(job):
                            self.live.remove(job)
                            self.draw(at_once=False)
                    self.board.show(self.live, self.trials())
            self.give_up_failed()
        except Stopped:
            done = sum(trial.state in ENDED for trial in self.trials())
            again = shlex.join(["python", "scripts/search.py", *self.command])
            self.board.say(f"Interrupted after {done} of {self.plan.trials} trials: go on with {again}")
            raise
        finally:
            for job in self.live:  # all at once, then one after the other
                if job.process:
                    job.process.terminate()
            for job in self.live:
                job.stop()
        self.draw()
        self.board.summary(self.trials(), self.folder)

    def draw(self, at_once: bool = True) -> None:
        """Write the page; while trials end every second, not for each of them."""
        if not at_once and time.monotonic() < self.next_page:
            return
        self.next_page = time.monotonic() + PAGE_S
        write_page(self.folder, self.plan, self.study, self.objectives, self.command)

    def fill(self) -> bool:
        """Start trials until as many are trained as there are jobs; False if none is left."""
        while len(self.live) < self.plan.jobs:
            if self.interrupted:
                job = self.open(self.interrupted.pop(0)._trial_id)
            elif len(self.trials()) < self.plan.trials:
                self.seed(len(self.trials()))
                job = self.open(self.study.ask()._trial_id)
            else:
                break
            if not self.settled_before(job):
                job.slot = min(set(range(self.plan.jobs)) - {other.slot for other in self.live})
                self.start(job)
                self.live.append(job)
        return bool(self.live)

    def start(self, job: Job) -> None:
        """Train a trial in its slot, or go on."""
        job.start(self.plan.fixed, passwords(self.cfg), self.lock, self.sharing.environment(job.slot))

    def seed(self, number: int) -> None:
        """Seed the sampler for one trial, so that a search that was killed asks for what it would have asked for."""
        seed = (int(self.cfg.seed) + number) % 2**32
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self.study.sampler = make_sampler(self.plan.sampler, seed)

    def open(self, trial_id: int) -> Job:
        """A trial with all its values; those that it lacks, as it was killed between two of them, are drawn now."""
        trial = optuna.Trial(self.study, trial_id)
        self.seed(trial.number)
        words = [f"{part.key}={part.suggest(trial)}" for part in self.plan.dimensions]
        epochs = dict(word.split("=", 1) for word in words).get("trainer.max_epochs", self.cfg.trainer.max_epochs)
        job = Job(trial.number, words, self.folder, trial, int(epochs), on=self.plan.on)
        job.reported |= set(next(old for old in self.trials() if old.number == job.number).intermediate_values)
        job.share = (str(self.plan.jobs), count_gpus(self.cfg))
        return job

    def settled_before(self, job: Job) -> bool:
        """Whether a trial needs no training: it was trained already, as another trial too, or does not fit the GPU."""
        if job.finished:
            return self.settle(job)
        for other in self.trials():
            if other.state == TrialState.COMPLETE and other.user_attrs.get("words") == job.words and other.values:
                job.trial.set_user_attr("same_as", other.number)
                self.tell(job, TrialState.COMPLETE, other.values, f"as trial {other.number}")
                return True
        if self.sharing.hardware.gpus:
            try:
                fit_memory(load_config([*self.plan.fixed, *job.words]), self.sharing.part)
            except TooLarge as error:
                self.tell(job, TrialState.PRUNED, None, f"not started: {error}")
                return True
        return False

    def settle(self, job: Job) -> bool:
        """Report a trial's new epochs; end it if it is hopeless; tell the study if it has ended, and return True.

        Raises:
            UserError: the cluster takes no trials. The next start goes on with this one.
        """
        ended = job.process is None or job.process.poll() is not None
        rows = [row for row in job.rows() if is_score(row.get(self.monitor))]
        values = {int(row["epoch"]): float(row[self.monitor]) for row in rows}
        several = len(self.objectives) > 1  # Optuna compares trials by one score only
        for epoch in () if several else sorted(values.keys() - job.reported):
            job.trial.report(values[epoch], epoch)
            job.reported.add(epoch)
        scores = job.scores([name for name, _ in self.objectives], self.task.monitor, self.task.mode)
        if job.finished and ended and len(scores) == len(self.objectives):
            self.tell(job, TrialState.COMPLETE, scores, "")
        elif job.finished and ended:
            self.tell(job, TrialState.PRUNED, None, "a score is not finite")
        elif not ended:
            if several or not values or max(values) >= job.epochs or not job.trial.should_prune():
                return False
            job.stop()
            self.tell(job, TrialState.PRUNED, None, f"pruned after epoch {max(values)}")
        elif job.unreached:
            raise UserError(job.reason())
        elif job.killed and job.deaths < MOST_DEATHS:
            job.deaths += 1
            self.start(job)
            return False
        else:
            self.fail(job, job.reason())
        return True

    def tell(self, job: Job, state: TrialState, values: list[float] | None, why: str) -> None:
        """Record how a trial ended."""
        job.trial.set_user_attr("words", job.words)
        job.trial.set_user_attr("run", job.run.name if job.run else "")
        job.trial.set_user_attr("why", why)
        self.study.tell(job.trial, values, state=state)
        self.board.ended(job, state, values, why)
        if state == TrialState.COMPLETE and not job.trial.user_attrs.get("same_as"):
            self.give_up_failed()

    def fail(self, job: Job, reason: str) -> None:
        """Record a failure. A trial that diverged has shown what its values are worth; others may be the machine's.

        Raises:
            UserError: the third in a row. The next start tries these trials again.
        """
        if reason.startswith(NOT_FINITE):
            self.tell(job, TrialState.PRUNED, None, reason.partition(":")[0])
            return
        self.failed.append((job, reason))
        self.board.say(f"{job.name} failed: {reason}")
        if len(self.failed) == MOST_FAILURES:
            raise UserError(
                f"{MOST_FAILURES} trials in a row failed, the last one so: {reason.rstrip('.')}. Fix that, then start "
                "the same command: it tries them again."
            )

    def give_up_failed(self) -> None:
        """Tell the study of trials that failed while others did not."""
        if self.failed and not any(trial.state == TrialState.COMPLETE for trial in self.trials()):
            job, reason = self.failed[-1]
            raise UserError(f"No trial could be trained; {job.name} failed so: {reason}")
        while self.failed:
            job, reason = self.failed.pop()
            self.tell(job, TrialState.FAIL, None, reason)


def choose_objectives(plan: Plan, task: BaseTask) -> list[tuple[str, str]]:
    """(name, "min" or "max") of each score to search for; without any, the task's own.

    Raises:
        UserError: nobody says whether more or less of a score is better.
    """
    found = [(name, mode or (task.mode if name == task.monitor else "")) for name, mode in plan.objectives] or [
        (task.monitor, task.mode)
    ]
    if unclear := next((name for name, mode in found if not mode), None):
        raise UserError(f"Is more or less {unclear} better? Write {unclear}:max or {unclear}:min in --objectives.")
    return found


def make_sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    """The sampler of that name; a grid is a queue, so its sampler draws nothing.

    Raises:
        UserError: a package that it needs is missing.
    """
    if name == "tpe":
        return optuna.samplers.TPESampler(seed=seed)
    if name == "gp":
        if not find_spec("torch"):
            raise UserError("--sampler gp needs torch: install it, or use --sampler tpe.")
        return optuna.samplers.GPSampler(seed=seed)
    return optuna.samplers.RandomSampler(seed=seed)

"""A trial is a run of `scripts/train.py` in a process of its own, which cannot outlive the search."""

import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from src.kit.config import UserError, unknown
from src.kit.hardware import Hardware
from src.kit.run import has_checkpoint, read_rows
from src.kit.search.on_ray import UNREACHED
from src.kit.storage import lock_folder, read_intact, read_json

TRAIN = Path(__file__).resolve().parents[3] / "scripts" / "train.py"
ON_RAY = Path(__file__).with_name("on_ray.py")
# Starts a script whose standard input is a pipe from the search. The pipe ends with the search, even with SIGKILL, on
# every system; then the script ends too. (Linux alone could send a signal, from code that runs between fork and exec.)
WATCHED = """\
import os, runpy, sys, threading

def wait():
    while os.read(0, 1):
        pass
    os._exit(137)

threading.Thread(target=wait, daemon=True).start()
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
SIGNALS = (130, 137, 143)  # exit codes of scripts that a signal has ended
OF_RUNS = ("parameters", "duration_s")  # numbers of run.json, known when it is evaluated
LOCK_S, POLL_S = 15.0, 0.3  # seconds to wait for the processes of a search that was killed, and between two looks
PATIENCE_S = 20.0  # for a process that is asked to end


@dataclass
class Job:
    """One trial that is being trained; `words` are its values as `train.py` takes them."""

    number: int
    words: list[str]
    folder: Path
    trial: Any  # of the study
    epochs: int
    process: "subprocess.Popen[bytes] | None" = None
    slot: int = 0
    began: float = field(default_factory=time.monotonic)
    reported: set[int] = field(default_factory=set)  # epochs that the study knows
    deaths: int = 0  # of processes that a signal has ended
    on: str = "here"
    share: tuple[str, str] = ("1", "auto")  # for Ray: how many jobs there are, and the GPUs of each

    @property
    def name(self) -> str:
        """How the run folder's name starts."""
        return f"trial-{self.number:03d}"

    @property
    def log(self) -> Path:
        """What the trial's processes have written to the terminal."""
        return self.folder / f"{self.name}.log"

    @property
    def run(self) -> Path | None:
        """The run folder, if there is one yet."""
        return max((path for path in self.folder.glob(f"{self.name}-*") if path.is_dir()), default=None)

    @property
    def finished(self) -> bool:
        """Whether the run was trained and evaluated."""
        return bool(self.run) and status(self.run) == "finished"

    def rows(self) -> list[dict[str, Any]]:
        """The finished epochs."""
        return read_rows(self.run / "metrics.jsonl") if self.run else []

    def scores(self, names: Sequence[str], monitor: str, mode: str) -> list[float]:
        """The objectives at the epoch of the best checkpoint, or the run's own, such as `parameters`; [] before that.

        One that is not finite is left out, as it is no score to the study.

        Raises:
            UserError: there is no score of that name.
        """
        rows = [row for row in self.rows() if is_score(row.get(monitor))]
        if not rows:
            return []
        row = (max if mode == "max" else min)(rows, key=lambda row: row[monitor])
        known = {name: value for name, value in row.items() if name not in ("epoch", "step", "lr")}
        if wrong := next((name for name in names if name not in {*known, *OF_RUNS}), None):
            raise UserError(unknown("objective", wrong, [*known, *OF_RUNS]))
        found = read_json(self.run / "run.json") | row if self.run else row
        return [float(found[name]) for name in names if is_score(found.get(name))]

    def start(self, fixed: Sequence[str], secrets: Sequence[str], lock: int | None, more: Mapping[str, str]) -> None:
        """Train, or go on from the run's last checkpoint.

        Args:
            fixed: what every trial has in common.
            secrets: overrides that a saved configuration lacks.
            lock: the search's lock, which the process holds too: nobody starts a second one while it lives.
            more: environment variables.
        """
        run = self.run
        if run and has_checkpoint(run):
            words = ["--resume", str(run), *secrets]
        else:
            if run:
                shutil.rmtree(run)  # killed before its first checkpoint
            words = [*fixed, *self.words, f"output_dir={self.folder.as_posix()}", f"name={self.name}"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.launcher, sys.executable, "-c", WATCHED, str(TRAIN), *words],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **more, "SLURM_EXIT_ERROR": str(UNREACHED)},  # srun's own errors
                pass_fds=() if lock is None else (lock,),
                start_new_session=True,  # Ctrl-C reaches the search alone, which ends its trials
            )

    @property
    def launcher(self) -> list[str]:
        """What starts a trial elsewhere. Both hand the end of their standard input on, so the pipe of `WATCHED` reaches
        other nodes, and hold the search's lock until the trial has ended there.

        For SLURM it is a step of one task, of the processors that the job gives to each. A step without --mem would
        take all of its node's memory, and the next would wait for it.
        """
        if self.on == "ray":
            return [sys.executable, str(ON_RAY), str(self.log), *self.share]
        if self.on == "slurm":
            cores = os.environ.get("SLURM_CPUS_PER_TASK", "1")
            return ["srun", "--nodes=1", "--ntasks=1", "--exact", "--mem=0", "--unbuffered", f"--cpus-per-task={cores}"]
        return []

    @property
    def killed(self) -> bool:
        """Whether a signal has ended the process: that says nothing about the trial."""
        return self.process is not None and (self.process.returncode < 0 or self.process.returncode in SIGNALS)

    @property
    def unreached(self) -> bool:
        """Whether Ray or SLURM could not start the trial: neither could they start another one."""
        return self.on != "here" and self.process is not None and self.process.returncode == UNREACHED

    def stop(self) -> None:
        """End the process, in order if it does so soon."""
        if not self.process:
            return
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(PATIENCE_S)
        self.process.kill()
        self.process.wait()

    def reason(self) -> str:
        """Why the process failed: its error message, or its exit code."""
        lines = self.log.read_text("utf-8", "replace").splitlines() if self.log.is_file() else []
        said = [line.removeprefix("error: ") for line in lines[-20:] if line.startswith("error: ")]
        code = self.process.returncode if self.process else None
        if self.unreached and self.on == "slurm":
            why = [line.removeprefix("srun: error: ") for line in lines if line.startswith("srun: error: ")][-1:]
            return f"srun starts no trial ({''.join(why)}): start this in a job (sbatch, salloc) that has not ended."
        return said[-1] if said else f"exit code {code}, see {self.log}"


@dataclass(frozen=True)
class Sharing:
    """How the trials of a search share out a machine.

    Args:
        hardware: all of it.
        jobs: trials at once.
        on: "here", or what gives each trial cores, memory and GPUs of its own.
        devices: `trainer.devices` of a trial.
        framework: of all trials.
    """

    hardware: Hardware
    jobs: int
    on: str
    devices: Any
    framework: str

    @property
    def part(self) -> Hardware:
        """The machine, as far as one of the trials may use it."""
        apart = len(self.hardware.gpus) if isinstance(self.devices, int | str) else 1
        together = math.ceil(self.jobs / apart) if self.on == "here" else 1
        gpus = tuple(replace(gpu, memory_mib=gpu.memory_mib // together) for gpu in self.hardware.gpus)
        return replace(self.hardware, gpus=gpus)

    def environment(self, slot: int) -> dict[str, str]:
        """Share out processor cores, unless the user has, and the GPUs that the user leaves visible."""
        if self.jobs == 1 or self.on != "here":
            return {}
        # Paddle has one thread by default, and with more a trial would take longer and not equal its repetition
        threads = 1 if self.framework == "paddle" else max(1, self.hardware.cores // self.jobs)
        shared = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(len(self.hardware.gpus))))
        gpus = [name for name in visible.split(",") if name]
        mine = gpus[slot :: self.jobs] or gpus[slot % max(1, len(gpus)) :][:1]
        if len(gpus) > 1 and (self.devices == "auto" or (isinstance(self.devices, int) and self.devices <= len(mine))):
            shared["CUDA_VISIBLE_DEVICES"] = ",".join(mine)
        return shared


def count_gpus(cfg: DictConfig) -> str:
    """How many GPUs a trial takes; "auto" for all that it gets."""
    devices = cfg.trainer.devices
    if cfg.trainer.accelerator not in ("auto", "gpu"):
        return "0"
    return str(devices if isinstance(devices, int | str) else len(devices))


def is_score(value: Any) -> bool:
    """Whether trials can be compared by a value."""
    return isinstance(value, float | int) and math.isfinite(value)


def status(run: Path | None) -> str:
    """The status in a run's run.json, or "" if nobody can tell."""
    return str(read_intact(run / "run.json").get("status", "")) if run else ""


@contextmanager
def hold(folder: Path) -> Iterator[int | None]:
    """Lock the folder; the processes of a search that was killed end within moments, and hold it until then."""
    deadline = time.monotonic() + LOCK_S
    with ExitStack() as stack:
        while True:
            try:
                lock = stack.enter_context(lock_folder(folder))
                break
            except UserError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(POLL_S)
        yield lock

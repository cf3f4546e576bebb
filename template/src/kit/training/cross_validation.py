"""k-fold cross-validation: an ordinary run for each fold, then mean and standard deviation of every score."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from src.kit.catalog import build_dataset
from src.kit.config import UserError, write_config
from src.kit.report import collect, write_fold_report
from src.kit.run import new_folder, read_json
from src.kit.training.checkpoints import describe_split

TRAIN = Path(__file__).resolve().parents[3] / "scripts" / "train.py"


def cross_validate(cfg: DictConfig, folder: Path | None = None) -> Path:
    """Train and evaluate `cfg.trainer.folds` runs `<folder>/fold-<number>-<time>`, and write folds.json and a report.

    Each fold is trained by a process of its own, so it equals the same run alone, whatever the framework and the number
    of devices. `folder` is that of a cross-validation to continue: its evaluated folds are left as they are.

    Raises:
        UserError: data without folds, a finished `folder`, or a fold that failed.
    """
    count = int(cfg.trainer.folds)
    if int(os.environ.get("WORLD_SIZE") or 1) > 1:
        raise UserError(
            "trainer.folds starts the processes of each fold itself: run scripts/train.py without a launcher."
        )
    if folder and (folder / "folds.json").exists():
        raise UserError(f"{folder} has finished: repeat it with --from {folder}.")
    check_folds(cfg, count)
    if folder is None:
        folder = new_folder(Path(cfg.output_dir), cfg.name)
        write_config(cfg, folder / "config.yaml")
    runs = [train_fold(folder, number, count) for number in range(1, count + 1)]
    write_fold_report(folder, collect(runs))
    sys.stdout.write(f"report: {folder / 'report.html'}\n")
    return folder


def check_folds(cfg: DictConfig, count: int) -> None:
    """Refuse data that are not divided into folds: a publisher's own validation split, or a stream."""
    folds = [OmegaConf.merge(cfg, {"data": {"fold": number, "folds": count}}) for number in (1, 2)]
    first, second = (describe_split(build_dataset(fold, "val"), Path(".")) for fold in folds)
    if first.get("sha256") == second.get("sha256"):
        raise UserError(f"data={cfg.data.name} cannot be divided into folds: leave trainer.folds out.")


def train_fold(folder: Path, number: int, count: int) -> Path:
    """Return the evaluated run of one fold; train it, or continue it, if there is none yet."""
    if run := find_fold(folder, number):
        return run
    sys.stdout.write(f"fold {number} of {count}\n")
    sys.stdout.flush()
    fold = ["trainer.folds=null", f"data.fold={number}", f"data.folds={count}", f"name=fold-{number}"]
    arguments = ["--from", str(folder), f"output_dir={folder.as_posix()}", *fold]
    started = sorted(folder.glob(f"fold-{number}-*/checkpoints/index.json"))
    if started and read_json(started[-1].parents[1] / "run.json").get("status") != "finished":
        arguments = ["--resume", str(started[-1].parents[1])]
    done = subprocess.run([sys.executable, str(TRAIN), *arguments], check=False)
    run = find_fold(folder, number)
    if done.returncode or not run:
        if not any(folder.glob("fold-*")):
            shutil.rmtree(folder)
            raise UserError(f"Fold {number} of {count} could not start, for the reason above.")
        raise UserError(f"Fold {number} of {count} failed: fix the error above, then continue with --resume {folder}.")
    return run


def find_fold(folder: Path, number: int) -> Path | None:
    """The newest run of a fold that has been evaluated on both splits."""
    runs = [path.parent for path in folder.glob(f"fold-{number}-*/evaluation-test.json")]
    return max(runs, default=None, key=lambda run: run.name)

"""Train in a container that may be killed at any time.

    python deploy/keep_training.py model=resnet18                   # the same as scripts/train.py model=resnet18
    python deploy/keep_training.py --auto-resume model=resnet18     # resumes the unfinished run of this command

    python deploy/keep_training.py --is-healthy                     # exits with 1 unless something here still writes

A run that was killed before its first checkpoint starts over. If the run has finished, a new one starts.
"""

import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.kit.errors import hide_passwords

OPTION = "--auto-resume"
TRAIN = "scripts/train.py"
OUTPUTS = "outputs"
FOLDERS = (OUTPUTS, "data")
PATIENCE_S = 3600.0


def main(argv: list[str]) -> None:
    """Replace this process by scripts/train.py, which resumes the unfinished run of the same overrides, if any."""
    if argv == ["--is-healthy"]:
        sys.exit(0 if is_healthy(Path.cwd()) else "Nothing that runs here has written a file in the last hour.")
    arguments = [argument for argument in argv if argument != OPTION]
    given = [word.partition("=")[2] for word in arguments if word.startswith("output_dir=")]
    run = find_unfinished(Path([OUTPUTS, *given][-1]), arguments) if OPTION in argv else None
    command = [sys.executable, TRAIN, *(["--resume", str(run)] if run else arguments)]
    print(f"{TRAIN} {' '.join(command[2:])}", flush=True)
    os.execv(sys.executable, command)


def find_unfinished(outputs: Path, arguments: list[str]) -> Path | None:
    """Return the newest run with exactly these overrides that can be continued and hasn't finished."""
    arguments = [hide_passwords(argument) for argument in arguments]  # as they are recorded
    runs: list[tuple[str, Path]] = []
    for run in (path for path in outputs.glob("*") if path.is_dir()):
        info = read_info(run)
        begun = any(run.glob("checkpoints/epoch=*/*")) or any(run.glob("fold-*"))
        if begun and info.get("status") != "finished" and info.get("command", [])[2:] == arguments:
            runs.append((str(info.get("started")), run))
    return max(runs)[1] if runs else None


def read_info(run: Path) -> dict[str, Any]:
    """Return a run's run.json, or a checkpoint's copy of it if it is missing or damaged."""
    for path in (run / "run.json", *sorted(run.glob("checkpoints/epoch=*/checkpoint.json"), reverse=True)):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            info = content if path.name == "run.json" else content["run"]
            if isinstance(info["command"], list):
                return dict(info)
        except (OSError, ValueError, LookupError, TypeError):
            continue
    return {}


def is_healthy(project: Path, patience_s: float = PATIENCE_S) -> bool:
    """Whether a folder of outputs/ or data/ in which a process holds a file open has one that was just written.

    Other containers write there too, so the age of files alone says nothing; their processes can't be seen from here.
    """
    folders = {file.parent for file in open_files() if any((project / name) in file.parents for name in FOLDERS)}
    written = [0.0]
    for folder in folders:
        for parent, _, names in os.walk(folder):  # unlike Path.rglob, it passes over a folder that is deleted meanwhile
            for name in names:
                with suppress(OSError):  # a file that is
                    written.append(os.stat(os.path.join(parent, name)).st_mtime)
    return time.time() - max(written) < patience_s


def open_files() -> set[Path]:
    """The files that this container's processes hold open, as far as Linux lets this user see them."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            found.add(Path(os.readlink(link)))
        except OSError:
            continue
    return found


if __name__ == "__main__":
    main(sys.argv[1:])

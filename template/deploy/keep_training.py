"""Train in a container that may be killed at any time.

    python deploy/keep_training.py model=resnet18                   # the same as scripts/train.py model=resnet18
    python deploy/keep_training.py --auto-resume model=resnet18     # resumes the unfinished run of this command

A run that was killed before its first checkpoint starts over. If the run has finished, a new one starts.
"""

import json
import os
import sys
from pathlib import Path

OPTION = "--auto-resume"
TRAIN = "scripts/train.py"


def main(argv: list[str]) -> None:
    """Replace this process by scripts/train.py, which resumes the unfinished run of the same overrides, if any."""
    arguments = [argument for argument in argv if argument != OPTION]
    run = find_unfinished(Path("outputs"), arguments) if OPTION in argv else None
    command = [sys.executable, TRAIN, *(["--resume", str(run)] if run else arguments)]
    print(f"{TRAIN} {' '.join(command[2:])}", flush=True)
    os.execv(sys.executable, command)


def find_unfinished(outputs: Path, arguments: list[str]) -> Path | None:
    """Return the newest run with exactly these overrides that has a checkpoint and hasn't finished."""
    runs: list[tuple[str, Path]] = []
    for file in outputs.glob("*/run.json"):
        info = json.loads(file.read_text(encoding="utf-8"))
        resumable = info.get("status") != "finished" and (file.parent / "checkpoints" / "index.json").is_file()
        if resumable and info.get("command", [])[2:] == arguments:
            runs.append((info["started"], file.parent))
    return max(runs)[1] if runs else None


if __name__ == "__main__":
    main(sys.argv[1:])

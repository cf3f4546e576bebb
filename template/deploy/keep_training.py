"""Train in a container that may be killed at any time.

    python deploy/keep_training.py model=resnet18                   # the same as scripts/train.py model=resnet18
    python deploy/keep_training.py --auto-resume model=resnet18     # goes on with what this command left unfinished

A run that was killed before its first checkpoint begins anew, and a finished one is followed by another.
"""

import json
import os
import sys
from pathlib import Path

OPTION = "--auto-resume"
TRAIN = "scripts/train.py"


def main(argv: list[str]) -> None:
    """Become scripts/train.py, which resumes the unfinished run of the same overrides where there is one."""
    arguments = [argument for argument in argv if argument != OPTION]
    run = unfinished(Path("outputs"), arguments) if OPTION in argv else None
    command = [sys.executable, TRAIN, *(["--resume", str(run)] if run else arguments)]
    print(f"{TRAIN} {' '.join(command[2:])}", flush=True)
    os.execv(sys.executable, command)


def unfinished(outputs: Path, arguments: list[str]) -> Path | None:
    """The newest run of exactly these overrides that has a checkpoint and has not finished."""
    found: list[tuple[str, Path]] = []
    for file in outputs.glob("*/run.json"):
        info = json.loads(file.read_text(encoding="utf-8"))
        resumable = info.get("status") != "finished" and (file.parent / "checkpoints" / "index.json").is_file()
        if resumable and info.get("command", [])[2:] == arguments:
            found.append((info["started"], file.parent))
    return max(found)[1] if found else None


if __name__ == "__main__":
    main(sys.argv[1:])

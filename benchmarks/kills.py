"""SIGKILLs at random moments of trainings, saves and evaluations; each training is restarted until it has finished.

python benchmarks/kills.py FRAMEWORK [KILLS] [SEED]          # in a project's folder; 100 kills take some minutes

Every process is forked from one that has imported the framework, which otherwise takes most of the time, and starts as
`deploy/keep_training.py --auto-resume` does: nobody chooses a run or a checkpoint.
"""

import hashlib
import importlib.util
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path.cwd()))

from scripts.train import main as train
from src.kit.config import load_config, run_main
from src.kit.training import load_trainer
from src.kit.weights import load_weights

KEYS = ["data=digits", "model=small_cnn", "model.dropout=0.2", "data.batch_size=32", "tracker=none"]
KEYS += ["trainer.max_epochs=4", "trainer.limit_train_batches=6", "trainer.checkpoint.every_n_steps=2"]
KEYS += ["trainer.checkpoint.keep_last=2", "trainer.limit_val_batches=2", "trainer.limit_test_batches=2"]
LAST = "epoch=004-*"
KINDS = ("any moment", "a save", "the evaluation")
PHASES = ("before its first checkpoint", "training", "a save", "the evaluation")


def main(framework: str, kills: int = 100, seed: int = 0) -> None:
    """Print one row: kills by what they hit, trainings, and how many ended like an undisturbed one."""
    load_trainer(load_config([f"framework={framework}"]))
    spec = importlib.util.spec_from_file_location("keep_training", "deploy/keep_training.py")
    assert spec and spec.loader
    keep = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(keep)
    chance, hits, same, trainings = random.Random(seed), Counter[str](), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        undisturbed = Path(folder) / "undisturbed"
        begun = time.monotonic()
        assert finish(undisturbed, framework, keep, None) == 0, (undisturbed / "log.txt").read_text("utf-8")
        usual = time.monotonic() - begun
        expected = describe(undisturbed)
        while sum(hits.values()) < kills:
            trainings += 1
            outputs = Path(folder) / str(trainings)
            code = -signal.SIGKILL
            while code == -signal.SIGKILL:
                killer = Killer(outputs, chance, usual) if sum(hits.values()) < kills else None
                code = finish(outputs, framework, keep, killer)
                if code == -signal.SIGKILL:
                    hits[phase(outputs)] += 1
            found = describe(outputs) if code == 0 else {"log": (outputs / "log.txt").read_text("utf-8")}
            same += found == expected
            if found != expected:
                print(f"training {trainings} differs: {found}\n{expected}", file=sys.stderr)
    by_phase = " | ".join(str(hits[name]) for name in PHASES)
    print(f"| {framework} | {sum(hits.values())} | {by_phase} | {trainings} | {same} |")


class Killer:
    """Decides when to kill a process: at any moment, soon after a save has begun, or soon after the last save."""

    def __init__(self, outputs: Path, chance: random.Random, usual: float) -> None:
        """`usual` is how many seconds an undisturbed training takes."""
        self.outputs, self.kind = outputs, chance.choice(KINDS)
        self.count = chance.randrange(1, 6)  # of the saves
        self.delay = {"any moment": usual, "a save": 0.05, "the evaluation": usual / 2}[self.kind] * chance.random()
        self.since = time.monotonic() if self.kind == "any moment" else None
        self.seen: set[str] = set()

    def due(self) -> bool:
        """Whether the moment has come."""
        if self.since is None:
            if self.kind == "a save":
                self.seen |= {path.name for path in self.outputs.glob("*/checkpoints/.*.partial")}
                begun = len(self.seen) >= self.count
            else:
                begun = any(self.outputs.glob(f"*/checkpoints/{LAST}"))
            self.since = time.monotonic() if begun else None
        return self.since is not None and time.monotonic() >= self.since + self.delay


def finish(outputs: Path, framework: str, keep: Any, killer: Killer | None) -> int:
    """Train in a process of its own, from the unfinished run in `outputs` if there is one; return its exit code."""
    outputs.mkdir(exist_ok=True)
    process = os.fork()
    if process == 0:
        start(outputs, framework, keep)
    while True:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if killer and killer.due():
            os.kill(process, signal.SIGKILL)
            killer = None
        time.sleep(0.002)


def start(outputs: Path, framework: str, keep: Any) -> None:
    """In the child: do what `keep_training.py --auto-resume` starts, and end."""
    code: Any = 1
    try:
        log = os.open(outputs / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        arguments = [f"framework={framework}", f"output_dir={outputs.as_posix()}", *KEYS]
        run = keep.find_unfinished(outputs, arguments)
        sys.argv = ["scripts/train.py", *(["--resume", str(run)] if run else arguments)]
        run_main(train, sys.argv[1:])
        code = 0
    except SystemExit as ended:
        code = ended.code
    finally:
        sys.stdout.flush()
        os._exit(code if isinstance(code, int) else 1)


def phase(outputs: Path) -> str:
    """What the newest run was doing when it was killed."""
    run = max(outputs.glob("*/"), default=None, key=lambda path: path.stat().st_ctime if path.is_dir() else 0)
    if run is None or not any(run.glob("checkpoints/epoch=*")):
        return PHASES[0]
    if any(run.glob("checkpoints/.*.partial")):
        return PHASES[2]
    return PHASES[3] if any(run.glob(f"checkpoints/{LAST}")) else PHASES[1]


def describe(outputs: Path) -> dict[str, Any]:
    """All of a finished run that must not depend on kills: each checkpoint's weights, metrics, scores."""
    finished = [path.parent for path in outputs.glob("*/run.json") if '"finished"' in path.read_text("utf-8")]
    if len(finished) != 1:
        return {"finished": len(finished)}
    run = finished[0]
    weights = {path.parent.name: digest(path) for path in sorted(run.glob("checkpoints/*/model.safetensors"))}
    index = json.loads((run / "checkpoints" / "index.json").read_text("utf-8"))
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    return {
        "weights": weights,
        "best and last": (index["best"], index["last"]),
        "metrics": [{**row, "epoch_s": 0} for row in rows],
        "scores": {path.name: json.loads(path.read_text("utf-8")) for path in sorted(run.glob("evaluation-*.json"))},
        "pictures": sorted(path.name for path in (run / "pictures").iterdir()),
        "report": (run / "report.html").is_file(),
        "halves": [path.name for path in run.rglob(".*")],
    }


def digest(path: Path) -> str:
    """SHA-256 of a file's weights and metadata, whose order differs from file to file."""
    arrays, metadata = load_weights(path)
    content = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        content.update(name.encode() + array.tobytes())
    return content.hexdigest()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))

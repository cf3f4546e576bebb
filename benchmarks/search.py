"""SIGKILLs at random moments of a search: of the search, of a trial, of everything; it is started again each time.

python benchmarks/search.py FRAMEWORK [KILLS] [SEED]         # in a project's folder; 20 kills take some minutes

Between two kills nothing is repaired and nobody chooses anything: the same command is started again.
"""

import importlib.util
import json
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from os import kill
from pathlib import Path
from typing import Any

import optuna

WORDS = ["optimizer.lr=1e-4..1e-1:log", "model.dropout=0..0.5", "--trials", "4", "--jobs", "2", "--pruner", "none"]
WORDS += ["--", "data=digits", "model=small_cnn", "tracker=none", "trainer.max_epochs=10"]
TARGETS = ("the search", "everything", "a trial")

spec = importlib.util.spec_from_file_location("kills", Path(__file__).with_name("kills.py"))
assert spec and spec.loader
KILLS = importlib.util.module_from_spec(spec)
spec.loader.exec_module(KILLS)


def main(framework: str, kills: int = 20, seed: int = 0) -> None:
    """Print one row: kills by what they hit, and how the searches ended, compared with an undisturbed one."""
    chance, hits = random.Random(seed), Counter[str]()
    trials = lost = repeated = equal = 0
    with tempfile.TemporaryDirectory() as folder:
        begun = time.monotonic()
        assert start(Path(folder) / "undisturbed", framework).wait() == 0
        usual = time.monotonic() - begun
        expected = describe(Path(folder) / "undisturbed")
        while sum(hits.values()) < kills:
            outputs = Path(folder) / f"killed-{trials}"
            repeated += finish(outputs, framework, chance, hits, kills, usual)
            found = describe(outputs)
            trials, lost = trials + len(expected), lost + len(expected.keys() - found.keys())
            equal += sum(found.get(number) == row for number, row in expected.items())
            if found != expected:
                print(json.dumps([found, expected], indent=1), file=sys.stderr)
    targets = " | ".join(str(hits[name]) for name in TARGETS)
    print(f"| {framework} | {sum(hits.values())} | {targets} | {trials} | {lost} | {repeated} | {equal} |")


def finish(outputs: Path, framework: str, chance: random.Random, hits: Counter[str], kills: int, usual: float) -> int:
    """Search with kills until the search has ended; return how many epochs were trained again without need."""
    repeated, saved = 0, dict[str, tuple[int, int]]()
    process = start(outputs, framework)
    while True:
        try:
            code = process.wait(chance.uniform(0.5, usual / 2) if sum(hits.values()) < kills else None)
        except subprocess.TimeoutExpired:
            target = strike(process, chance.choice(TARGETS))
            repeated += count_repeated(outputs, saved)
            saved = {path.name: progress(path) for path in runs(outputs)}
            hits[target] += target != ""
            if process.poll() is not None:
                process = start(outputs, framework)
            continue
        assert code == 0, (outputs / "log.txt").read_text("utf-8")
        return repeated + count_repeated(outputs, saved)


def start(outputs: Path, framework: str) -> "subprocess.Popen[bytes]":
    """Start the search, or go on with it."""
    words = [*WORDS, f"framework={framework}", f"output_dir={outputs.as_posix()}"]
    outputs.mkdir(exist_ok=True)
    log = (outputs / "log.txt").open("ab")
    return subprocess.Popen([sys.executable, "scripts/search.py", *words], stdout=log, stderr=log)


def strike(process: "subprocess.Popen[bytes]", target: str) -> str:
    """Kill what is to be killed, and wait until all is over that has to end; return "" if there was nothing."""
    trials = children(process.pid)
    if target == "a trial":
        if not trials:
            return ""
        kill(trials[0], signal.SIGKILL)
        return target
    process.kill()
    process.wait()
    for number in trials if target == "everything" else ():
        with suppress(ProcessLookupError):
            kill(number, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while any(map(alive, trials)):
        assert time.monotonic() < deadline, "a trial outlives its search"
        time.sleep(0.01)
    return target


def children(process: int) -> list[int]:
    """Processes that a process has started."""
    return [int(number) for number in Path(f"/proc/{process}/task/{process}/children").read_text("ascii").split()]


def alive(process: int) -> bool:
    """Whether a process still runs."""
    try:
        return Path(f"/proc/{process}/stat").read_text("ascii").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def runs(outputs: Path) -> list[Path]:
    """The trials' run folders."""
    return sorted(path for path in outputs.glob("search-*/trial-*/") if path.is_dir())


def epochs(run: Path) -> list[int]:
    """The epochs that were trained to their end, in their order and as often as they were."""
    log = run / "train.log"
    return [int(epoch) for epoch in re.findall(r"'epoch': (\d+)", log.read_text("utf-8"))] if log.is_file() else []


def progress(run: Path) -> tuple[int, int]:
    """How many epochs were trained so far, and the last one in a whole checkpoint."""
    whole = [int(path.name[6:9]) for path in run.glob("checkpoints/epoch=*/") if (path / "checkpoint.json").is_file()]
    return len(epochs(run)), max(whole, default=0)


def count_repeated(outputs: Path, saved: dict[str, tuple[int, int]]) -> int:
    """Epochs trained since the last kill that a whole checkpoint held already."""
    known = {path.name: path for path in runs(outputs)}
    return sum(
        epoch <= last for name, (count, last) in saved.items() if name in known for epoch in epochs(known[name])[count:]
    )


def describe(outputs: Path) -> dict[str, Any]:
    """What must not depend on kills: each trial's values, score, epochs, scores on the splits, and weights."""
    (path,) = outputs.glob("search-*/study.db")
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{path.as_posix()}")
    found = {}
    for trial in study.trials:
        (run,) = [run for run in runs(outputs) if run.name.startswith(f"trial-{trial.number:03d}-")]
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
        found[str(trial.number)] = {
            "state": trial.state.name,
            "values": trial.params,
            "score": trial.values,
            "metrics": [{**row, "epoch_s": 0} for row in rows],
            "scores": [json.loads(path.read_text("utf-8")) for path in sorted(run.glob("evaluation-*.json"))],
            "weights": [KILLS.digest(path) for path in sorted(run.glob("checkpoints/*/model.safetensors"))],
        }
    return found


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    main(sys.argv[1], *map(int, sys.argv[2:]))

"""What a search shows: its progress on the terminal, and `search.html`."""

import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from string import Template
from types import TracebackType
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from src.kit.errors import hide_passwords
from src.kit.report import TEMPLATE, Link, card, escaped, section, side_by_side, table
from src.kit.search.pictures import Result, draw_search
from src.kit.search.space import Plan
from src.kit.search.trials import Job, status
from src.kit.storage import read_json, write_text

WORDS = {
    TrialState.COMPLETE: "trained",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
}
LINE = 110  # letters
FEWEST = 4  # trials that can say what is important


class Board:
    """Progress on the terminal: a table of what is being trained, and a line for each trial that ends."""

    def __init__(self, plan: Plan, monitor: str, mode: str) -> None:
        from rich.console import Console
        from rich.live import Live

        self.plan, self.monitor, self.mode = plan, monitor, mode
        self.console = Console(file=sys.stdout, soft_wrap=True, highlight=False, markup=False)
        shown = self.console.is_terminal and not self.console.is_dumb_terminal
        self.live = Live(console=self.console, auto_refresh=False, transient=True) if shown else None

    def __enter__(self) -> "Board":
        if self.live:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.live.stop()

    def say(self, line: str) -> None:
        """Write a line, above the table."""
        self.console.print(hide_passwords(line), soft_wrap=True)
        self.console.file.flush()

    def ended(self, job: Job, state: TrialState, value: float | None, why: str) -> None:
        """Write how a trial ended."""
        score = WORDS[state] if value is None else f"{self.monitor} {value:.4f}"
        self.say("  ".join([job.name, score, *job.words, *([f"({why})"] if why else [])]))

    def show(self, jobs: Sequence[Job], trials: Sequence[FrozenTrial]) -> None:
        """Draw the table of the trials that are being trained."""
        if not self.live:
            return
        from rich.table import Table

        counts = Counter(trial.state for trial in trials)
        done = sum(counts[state] for state in WORDS if state != TrialState.RUNNING)
        best = best_trial(trials, self.mode)
        title = f"{done}/{self.plan.trials} trials, {counts[TrialState.PRUNED]} pruned"
        title += f", best {self.monitor} {best[0]:.4f} (trial {best[1].number})" if best else ""
        board = Table(title=title, title_justify="left", title_style="bold", expand=False)
        for name in ("trial", "epoch", self.monitor, *(part.key for part in self.plan.dimensions)):
            board.add_column(name, overflow="fold")
        for job in jobs:
            rows = job.rows()
            score = rows[-1].get(self.monitor) if rows else None
            values = [word.partition("=")[2] for word in job.words]
            epoch = f"{rows[-1]['epoch'] if rows else 0}/{job.epochs}"
            board.add_row(str(job.number), epoch, "-" if score is None else f"{score:.4f}", *values)
        self.live.update(board, refresh=True)

    def summary(self, trials: Sequence[FrozenTrial], folder: Path) -> None:
        """Write what came out: how many trials, the best one's command, and the page."""
        counts = Counter(WORDS[trial.state] for trial in trials)
        self.say(", ".join(f"{count} {word}" for word, count in counts.items()))
        if best := best_trial(trials, self.mode):
            score, trial = best
            self.say(f"best: trial {trial.number}, {self.monitor} {score:.4f}\n{best_command(self.plan, trial)}")
        self.say(f"page: {folder / 'search.html'}")


def scored(trials: Sequence[FrozenTrial]) -> list[tuple[float, FrozenTrial]]:
    """The trials with a score, which those have that were trained to their end."""
    return [(trial.value, trial) for trial in trials if trial.state == TrialState.COMPLETE and trial.value is not None]


def best_trial(trials: Sequence[FrozenTrial], mode: str) -> tuple[float, FrozenTrial] | None:
    """The best score and its trial, the first among equals; None if no trial has a score."""
    return (max if mode == "max" else min)(scored(trials), key=lambda pair: pair[0], default=None)


def best_command(plan: Plan, trial: FrozenTrial) -> str:
    """The command that trains a trial's configuration again."""
    words = trial.user_attrs.get("words", [])
    return hide_passwords(shlex.join(["python", "scripts/train.py", *plan.fixed, *words]))


def write_page(folder: Path, plan: Plan, study: optuna.Study, monitor: str, mode: str, command: Sequence[str]) -> Path:
    """Write search.html and its pictures, and return the page's path."""
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.state in WORDS]
    results = [Result(trial.number, trial.params, score) for score, trial in scored(trials)]
    pictures = draw_search(plan.dimensions, results, importances(study, results), monitor, mode, folder / "pictures")
    best, counts = best_trial(trials, mode), Counter(trial.state for trial in trials)
    cards = [card(f"{best[0]:.4f}", f"best {monitor}, trial {best[1].number}")] if best else []
    cards.append(card(f"{sum(counts.values()) - counts[TrialState.RUNNING]} of {plan.trials}", "trials"))
    cards += [card(str(counts[state]), word) for state, word in WORDS.items() if counts[state]]
    again = wrapped(["python", "scripts/search.py", *command])
    rows = [{"key": part.key, "values": part.text.replace("|", ", ").replace(",", ", ")} for part in plan.dimensions]
    parts = [
        section("Best", f"<pre>{wrapped(shlex.split(best_command(plan, best[1])))}</pre>" if best else ""),
        section("Pictures", *(side_by_side(pictures[at : at + 2], "chart") for at in range(0, len(pictures), 2))),
        section("Trials", table([row_of(trial, plan, folder, monitor) for trial in ranked(trials, mode)], wide=True)),
        section("What was searched", table(rows)),
        section(
            "Go on",
            f"<p>After an interruption, or with more trials:</p><pre>{again}</pre>",
            f"<p>Look closer:</p><pre>optuna-dashboard sqlite:///{escaped((folder / 'study.db').as_posix())}</pre>",
        ),
    ]
    page = Template(TEMPLATE.read_text("utf-8")).substitute(
        title=escaped(folder.name),
        subtitle=escaped(f"{plan.sampler} search of {', '.join(part.key for part in plan.dimensions)}"),
        cards="".join(cards),
        advice="",
        sections="\n".join(parts),
    )
    return write_text(folder / "search.html", page)


def wrapped(words: Sequence[str]) -> str:
    """A command for the page, on several lines if it is long, as a shell reads it."""
    lines = [""]
    for word in (hide_passwords(shlex.quote(word)) for word in words):
        if len(lines[-1]) + len(word) > LINE:
            lines[-1] += "\\"
            lines.append("    ")
        lines[-1] += f"{word} "
    return escaped("\n".join(lines).rstrip())


def importances(study: optuna.Study, results: Sequence[Result]) -> dict[str, float]:
    """The share of the scores' differences that each key explains; empty if the trials cannot tell."""
    if len(results) < FEWEST or len({row.score for row in results}) == 1:
        return {}
    shares = optuna.importance.get_param_importances(study)
    return {key: float(share) for key, share in shares.items()} if sum(shares.values()) > 0 else {}


def ranked(trials: Sequence[FrozenTrial], mode: str) -> list[FrozenTrial]:
    """Scores first, the best at the top; then the others in the order of their numbers."""
    sign = -1 if mode == "max" else 1
    first = [trial for _, trial in sorted(scored(trials), key=lambda pair: (sign * pair[0], pair[1].number))]
    return [*first, *(trial for trial in trials if trial not in first)]


def row_of(trial: FrozenTrial, plan: Plan, folder: Path, monitor: str) -> dict[str, Any]:
    """A trial's row in the table: scores, values, and a link to its report."""
    words = dict(word.partition("=")[::2] for word in trial.user_attrs.get("words", []))
    values = {part.key: words.get(part.key, shown(trial.params.get(part.key))) for part in plan.dimensions}
    run = folder / trial.user_attrs["run"] if trial.user_attrs.get("run") else None
    scores = read_json(run / "evaluation-test.json") if run and status(run) == "finished" else {}
    name = monitor.partition("/")[2]
    value = trial.value if trial.state == TrialState.COMPLETE else last_value(trial)
    report = Link(f"{run.name}/report.html", run.name) if run and (run / "report.html").is_file() else None
    tested = {f"test/{name}": scores[name]} if isinstance(scores.get(name), float) else {}
    how = trial.user_attrs.get("why") or WORDS[trial.state]
    return {"trial": trial.number, monitor: value, **tested, **values, "how it ended": how, "report": report}


def last_value(trial: FrozenTrial) -> float | None:
    """The score of the last epoch that was reported."""
    return trial.intermediate_values[max(trial.intermediate_values)] if trial.intermediate_values else None


def shown(value: Any) -> str:
    """A value of the study in few digits."""
    return f"{value:.5g}" if isinstance(value, float) else "" if value is None else str(value)

"""What a search shows: its progress on the terminal, and `search.html`."""

import shlex
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from string import Template
from types import TracebackType
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from src.kit.errors import hide_passwords
from src.kit.report import TEMPLATE, Link, card, escaped, section, side_by_side, table
from src.kit.search.pictures import Result, draw_front, draw_search
from src.kit.search.space import Plan
from src.kit.search.trials import Job, status
from src.kit.storage import read_json, write_text

WORDS = {
    TrialState.COMPLETE: "trained",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
}
Objectives = Sequence[tuple[str, str]]  # (name, "min" or "max") of each score; the first orders the trials
LINE = 110  # letters
FEWEST = 4  # trials that can say what is important


class Board:
    """Progress on the terminal: a table of what is being trained, and a line for each trial that ends."""

    def __init__(self, plan: Plan, objectives: Objectives) -> None:
        from rich.console import Console
        from rich.live import Live

        self.plan, self.objectives = plan, objectives
        self.monitor, self.mode = objectives[0]
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

    def ended(self, job: Job, state: TrialState, values: Sequence[float] | None, why: str) -> None:
        """Write how a trial ended."""
        score = describe(self.objectives, values) if values else WORDS[state]
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
        for trial in find_front(trials, self.objectives):
            how = f"best: trial {trial.number}, {describe(self.objectives, trial.values)}"
            self.say(f"{how}\n{best_command(self.plan, trial)}")
        self.say(f"page: {folder / 'search.html'}")


def scored(trials: Sequence[FrozenTrial]) -> list[tuple[float, FrozenTrial]]:
    """The trials with a score, which those have that were trained to their end; of several, the first."""
    return [(trial.values[0], trial) for trial in trials if trial.state == TrialState.COMPLETE and trial.values]


def best_trial(trials: Sequence[FrozenTrial], mode: str) -> tuple[float, FrozenTrial] | None:
    """The best score and its trial, the first among equals; None if no trial has a score."""
    return (max if mode == "max" else min)(scored(trials), key=lambda pair: pair[0], default=None)


def find_front(trials: Sequence[FrozenTrial], objectives: Objectives) -> list[FrozenTrial]:
    """The Pareto front, by its first objective: trials that no other one equals or beats in all objectives.

    Of equal trials the first is on it; with one objective that is the best trial.
    """
    signs = [1 if mode == "max" else -1 for _, mode in objectives]
    rows = [([sign * value for sign, value in zip(signs, one.values, strict=True)], one) for _, one in scored(trials)]
    front = [
        (row, trial)
        for row, trial in rows
        if not any(
            all(theirs >= mine for theirs, mine in zip(other, row, strict=True))
            and (other != row or rival.number < trial.number)
            for other, rival in rows
        )
    ]
    return [trial for _, trial in sorted(front, key=lambda pair: pair[0], reverse=True)]


def describe(objectives: Objectives, values: Sequence[float]) -> str:
    """`"val/accuracy 0.9310, parameters 4210"`."""
    texts = [f"{value:.0f}" if float(value).is_integer() and abs(value) > 1 else f"{value:.4f}" for value in values]
    return ", ".join(f"{name} {text}" for (name, _), text in zip(objectives, texts, strict=True))


def best_command(plan: Plan, trial: FrozenTrial) -> str:
    """The command that trains a trial's configuration again."""
    words = trial.user_attrs.get("words", [])
    return hide_passwords(shlex.join(["python", "scripts/train.py", *plan.fixed, *words]))


def write_page(folder: Path, plan: Plan, study: optuna.Study, objectives: Objectives, command: Sequence[str]) -> Path:
    """Write search.html and its pictures, and return the page's path."""
    monitor, mode = objectives[0]
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.state in WORDS]
    results = [Result(trial.number, trial.params, score) for score, trial in scored(trials)]
    front = find_front(trials, objectives)
    pictures = draw_search(plan.dimensions, results, importances(study, results), monitor, mode, folder / "pictures")
    if len(objectives) > 1 and front:
        points = {trial.number: trial.values for _, trial in scored(trials)}
        chosen = [trial.number for trial in front]
        pictures.insert(0, draw_front(points, chosen, objectives, folder / "pictures" / "front.png"))
    best, counts = best_trial(trials, mode), Counter(trial.state for trial in trials)
    cards = [card(f"{best[0]:.4f}", f"best {monitor}, trial {best[1].number}")] if best else []
    cards += [card(str(len(front)), "on the Pareto front")] if len(objectives) > 1 else []
    cards.append(card(f"{sum(counts.values()) - counts[TrialState.RUNNING]} of {plan.trials}", "trials"))
    cards += [card(str(counts[state]), word) for state, word in WORDS.items() if counts[state]]
    order = ranked(trials, mode)
    again = wrapped(["python", "scripts/search.py", *command])
    rows = [{"key": part.key, "values": part.text.replace("|", ", ").replace(",", ", ")} for part in plan.dimensions]
    parts = [
        section("Best", *(shown_command(plan, trial, objectives) for trial in front)),
        section("Pictures", *(side_by_side(pictures[at : at + 2], "chart") for at in range(0, len(pictures), 2))),
        section("Trials", table([row_of(one, plan, folder, objectives, one in front) for one in order], wide=True)),
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


def shown_command(plan: Plan, trial: FrozenTrial, objectives: Objectives) -> str:
    """A trial of the front for the page: its command, below its scores if there are several."""
    scores = f"<p>{escaped(describe(objectives, trial.values))}</p>" if len(objectives) > 1 else ""
    return f"{scores}<pre>{wrapped(shlex.split(best_command(plan, trial)))}</pre>"


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
    """The share of the (first) scores' differences that each key explains; empty if the trials cannot tell."""
    if len(results) < FEWEST or len({row.score for row in results}) == 1:
        return {}
    sign = -1 if study.directions[0] == optuna.study.StudyDirection.MAXIMIZE else 1  # it takes less for better
    target = None if len(study.directions) == 1 else lambda trial: sign * trial.values[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it warns of what `sign` is for
        shares = optuna.importance.get_param_importances(study, target=target)
    return {key: float(share) for key, share in shares.items()} if sum(shares.values()) > 0 else {}


def ranked(trials: Sequence[FrozenTrial], mode: str) -> list[FrozenTrial]:
    """Scores first, the best at the top; then the others in the order of their numbers."""
    sign = -1 if mode == "max" else 1
    first = [trial for _, trial in sorted(scored(trials), key=lambda pair: (sign * pair[0], pair[1].number))]
    return [*first, *(trial for trial in trials if trial not in first)]


def row_of(trial: FrozenTrial, plan: Plan, folder: Path, objectives: Objectives, best: bool) -> dict[str, Any]:
    """A trial's row in the table: scores, values, and a link to its report."""
    words = dict(word.partition("=")[::2] for word in trial.user_attrs.get("words", []))
    values = {part.key: words.get(part.key, shown(trial.params.get(part.key))) for part in plan.dimensions}
    run = folder / trial.user_attrs["run"] if trial.user_attrs.get("run") else None
    scores = read_json(run / "evaluation-test.json") if run and status(run) == "finished" else {}
    monitor = objectives[0][0]
    name = monitor.partition("/")[2]
    values_of = trial.values if trial.state == TrialState.COMPLETE and trial.values else [last_value(trial)]
    goals = dict(zip_longest([name for name, _ in objectives], values_of))
    report = Link(f"{run.name}/report.html", run.name) if run and (run / "report.html").is_file() else None
    tested = {f"test/{name}": scores[name]} if isinstance(scores.get(name), float) else {}
    how = trial.user_attrs.get("why") or WORDS[trial.state]
    how += ", on the Pareto front" if best and len(objectives) > 1 else ""
    return {"trial": trial.number, **goals, **tested, **values, "how it ended": how, "report": report}


def last_value(trial: FrozenTrial) -> float | None:
    """The score of the last epoch that was reported."""
    return trial.intermediate_values[max(trial.intermediate_values)] if trial.intermediate_values else None


def shown(value: Any) -> str:
    """A value of the study in few digits."""
    return f"{value:.5g}" if isinstance(value, float) else "" if value is None else str(value)

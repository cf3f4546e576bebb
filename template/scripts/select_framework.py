"""Score both frameworks and recommend one:

    python scripts/select_framework.py                                  # asks for the scores
    python scripts/select_framework.py --team-familiarity 2 5 --write   # keeps the suggested scores of the others

Scores range from 1 (poor) to 5 (excellent), PyTorch Lightning's first. `--write` writes the result to
docs/select_framework.md. Runs without any package installed.
"""

import argparse
import os
import re
import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.kit.errors import UserError, run_main

ROOT = Path(__file__).resolve().parents[1]
THRESHOLD = 350  # in hundredths, like all results: sums of whole numbers are exact
NAMES = ("PyTorch Lightning", "PaddlePaddle")


class Criterion(NamedTuple):
    """One row: `weight` in percent, `start` the suggested scores of Lightning and Paddle, `reason` why."""

    key: str
    label: str
    weight: int
    start: tuple[int, int]
    reason: str


CRITERIA = (
    Criterion("team_familiarity", "Team familiarity", 30, (4, 3), "most published code is PyTorch; you know your team"),
    Criterion("deployment", "Ease of deployment", 25, (4, 4), "both export to ONNX; your target may prefer one"),
    Criterion("performance", "Performance", 25, (4, 4), "both call the same vendor libraries; measure your model"),
    Criterion("community", "Community", 20, (5, 3), "PyTorch's is larger; Paddle's is largest in Chinese"),
)


def totals(scores: list[tuple[int, int]]) -> tuple[int, int]:
    """Return the weighted results of Lightning and Paddle, 100 to 500 hundredths."""
    first, second = (sum(c.weight * pair[i] for c, pair in zip(CRITERIA, scores, strict=True)) for i in (0, 1))
    return first, second


def verdict(scores: list[tuple[int, int]]) -> str:
    """Return the recommendation in one sentence."""
    results = totals(scores)
    best, worst = max(results), min(results)
    winner = NAMES[results.index(best)]
    if best == worst:
        if best >= THRESHOLD:
            return f"Both reach {two_places(best)}: either is recommended, {winner} is named first."
        return f"Neither is recommended: both reach {two_places(best)}, below {two_places(THRESHOLD)}."
    if best >= THRESHOLD:
        return f"{winner} is recommended: {two_places(best)} against {two_places(worst)}."
    return f"Neither is recommended: {winner} is better with {two_places(best)}, but below {two_places(THRESHOLD)}."


def two_places(hundredths: int) -> str:
    """350 -> "3.50"."""
    return f"{hundredths / 100:.2f}"


def table(scores: list[tuple[int, int]]) -> str:
    """Format the scores and the results as a Markdown table."""
    first, second = (two_places(total) for total in totals(scores))
    rows = [f"| criterion | weight | {NAMES[0]} | {NAMES[1]} |", "|---|---|---|---|"]
    rows += [f"| {c.label} | {c.weight} % | {a} | {b} |" for c, (a, b) in zip(CRITERIA, scores, strict=True)]
    return "\n".join([*rows, f"| **Weighted result** | 100 % | **{first}** | **{second}** |"])


def document(scores: list[tuple[int, int]]) -> str:
    """Return the content of docs/select_framework.md."""
    reasons = "\n".join(f"- {c.label} {c.start[0]} and {c.start[1]}: {c.reason}." for c in CRITERIA)
    return f"""# Technical selection

{verdict(scores)}

{table(scores)}

Scores range from 1 (poor) to 5 (excellent); a framework that reaches {two_places(THRESHOLD)} is recommended.
The suggested scores are opinions, not measurements:

{reasons}

Score again at any time: `python scripts/select_framework.py --write`.
"""


def parse_pair(label: str, text: str) -> tuple[int, int]:
    """ "4 3" -> (4, 3). Raises UserError unless it is two whole numbers from 1 to 5."""
    found = re.fullmatch(r"\s*([1-5])\s+([1-5])\s*", text)
    if not found:
        raise UserError(f"{label}: type two whole numbers from 1 to 5, as in 4 3, not {text[:40]!r}.")
    return int(found[1]), int(found[2])


def ask(criterion: Criterion) -> tuple[int, int]:
    """Ask until the answer is valid; Enter takes the suggestion."""
    suggestion = "{} {}".format(*criterion.start)
    while True:
        try:
            return parse_pair(criterion.label, input(f"{criterion.label} [{suggestion}]: ") or suggestion)
        except UserError as error:
            print(error)
        except EOFError:
            raise UserError("There is no terminal to ask on: give the scores, as in --team-familiarity 4 3.") from None


def main(argv: list[str]) -> None:
    """Print the table and the verdict; with `--write`, write them to the document."""
    parser = argparse.ArgumentParser(description="Scores PyTorch Lightning and PaddlePaddle and recommends one.")
    for c in CRITERIA:
        parser.add_argument(f"--{c.key.replace('_', '-')}", nargs=2, metavar=("LIGHTNING", "PADDLE"), help=c.reason)
    parser.add_argument("--write", action="store_true", help="write docs/select_framework.md")
    options = parser.parse_args(argv)
    given = {c.key: getattr(options, c.key) for c in CRITERIA if getattr(options, c.key)}
    if given:
        scores = [parse_pair(c.label, " ".join(given[c.key])) if c.key in given else c.start for c in CRITERIA]
    else:
        print(f"Scores from 1 (poor) to 5 (excellent), {NAMES[0]}'s first; Enter takes the suggestion.")
        scores = [ask(criterion) for criterion in CRITERIA]
    print(f"\n{table(scores)}\n\n{verdict(scores)}")
    if options.write:
        file = ROOT / "docs" / "select_framework.md"
        file.parent.mkdir(exist_ok=True)
        temporary = file.with_name(f"{file.name}.{os.getpid()}")
        temporary.write_bytes(document(scores).encode())
        os.replace(temporary, file)
        print(f"\nWritten to {file.relative_to(ROOT).as_posix()}.")


if __name__ == "__main__":
    run_main(main)

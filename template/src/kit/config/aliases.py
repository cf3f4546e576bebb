"""Words of other tools, such as Hydra's `+key` and Lightning's `trainer.gpus`: understood, or answered."""

import difflib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from src.kit.errors import UserError

KIT = Path(__file__).resolve().parents[1]
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C ten times as fast, where it was built
DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
TABLE = Path(__file__).resolve().with_name("aliases.yaml")


@cache
def table() -> dict[str, Any]:
    """`aliases.yaml`: "means" and "values" as they are, "answers" as word -> sentence; other packages' answers win."""
    rows: dict[str, Any] = yaml.load(TABLE.read_text("utf-8"), LOADER)
    others = [yaml.load(path.read_text("utf-8"), LOADER) for path in KIT.glob("*/aliases.yaml") if path != TABLE]
    answers = [row for part in (rows, *others) for row in part["answers"]]
    rows["answers"] = {word: row["say"] for row in answers for word in row["words"]}
    return rows


def understand(key: str, text: str) -> tuple[str, str]:
    """An override in this project's words: `("trainer.batch_size", "4")` -> `("data.batch_size", "4")`."""
    means, values = table()["means"], table()["values"]
    whole = means.get(f"{key}={text.lower()}")
    key, text = whole.split("=") if whole else (str(means.get(key, key)), text)
    return key, str(values.get(key, {}).get(text.lower(), text))


def answer(word: str) -> str | None:
    """What to write in place of another tool's word, or None: `"ckpt_path"` -> "continue a run with ..."."""
    answers: dict[str, str] = table()["answers"]
    if word in answers:
        return answers[word]
    longest = max((name for name in answers if name[-1] in "./" and word.startswith(name)), key=len, default="")
    return answers.get(longest)


def unknown_key(
    key: str,
    known: Iterable[str],
    groups: Iterable[str] = (),
    elsewhere: str = "",
    listed: str = "--help lists every key.",
) -> str:
    """One sentence that says that a key does not exist and which one was probably meant.

    Args:
        elsewhere: what has exactly this key, in words; it goes before keys with a similar name.
        listed: where the keys are listed, in a sentence, for a name that is like none of them.
    """
    last = key.rpartition(".")[2]
    names = list(known)
    if said := answer(key):
        return f"Unknown key {key!r}: {said}."
    meant = understand(key, "")[0]
    if elsewhere and meant not in names:
        return f"Unknown key {key!r}: {elsewhere}."
    nearest = [meant] if meant in names else difflib.get_close_matches(key, names, n=1)
    nearest = nearest or [name for name in names if name.rpartition(".")[2] == last]
    if "." in key and last in set(groups):
        nearest = [f"{last}=NAME"]
    nearest = nearest or difflib.get_close_matches(key, list(groups), n=1)
    return f"Unknown key {key!r}." + (f" Did you mean {nearest[0]}?" if nearest else f" {listed}")


def refuse_foreign(argument: str) -> None:
    """Answer an argument that is no `key=value` of this project.

    Raises:
        UserError: it is another tool's option, or has no value.
    """
    key, equals, text = argument.partition("=")
    said = answer(key)
    if said:
        raise UserError(f"{key!r} is not supported: {said}.")
    plain = key.lstrip("-").replace("-", "_")
    if key.startswith("-") and plain in table()["means"]:
        name, value = understand(plain, text or "VALUE")
        raise UserError(f"Cannot read {argument!r}: write {name}={value}.")
    if key.startswith("-") and answer(plain):
        raise UserError(f"{key!r} is not supported: {answer(plain)}.")
    if not equals or not key or key.startswith("-"):
        raise UserError(f"Cannot read {argument!r}: write key=value, such as trainer.max_epochs=1, or --help.")

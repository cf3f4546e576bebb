"""Check a configuration against reference.yaml, the table of every key with its type, range and meaning."""

import difflib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from src.kit.config.errors import UserError

REFERENCE = Path(__file__).with_name("reference.yaml")
TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "str": (str,),
    "list": (list,),
}
WORDS = {"int": "an integer", "float": "a number", "bool": "true or false", "str": "a text", "list": "a list"}


@cache
def reference() -> dict[str, dict[str, Any]]:
    """Dotted key -> {type, min, max, above, below, choices, null, help}, from the kit packages of this project."""
    files = [REFERENCE, *sorted(REFERENCE.parents[1].glob("*/keys.yaml"))]
    return {key: rule for file in files for key, rule in OmegaConf.to_container(OmegaConf.load(file)).items()}


def check(cfg: DictConfig) -> None:
    """Refuse the first value that its row of the reference does not allow; make whole numbers floats where it says so.

    Keys without a row are free.

    Raises:
        UserError: names the key, what it allows and the value.
    """
    for key, value in leaves(cfg).items():
        rule = reference().get(key)
        if rule and not allowed(value, rule):
            raise UserError(f"{key} must be {describe(rule)}, not {value!r}.")
        if rule and rule.get("type") == "float" and isinstance(value, int):
            OmegaConf.update(cfg, key, float(value))


def allowed(value: Any, rule: dict[str, Any]) -> bool:
    """Whether the value is null where that is allowed, one of the choices, or of the type and within the range."""
    if value is None:
        return bool(rule.get("null"))
    if value in rule.get("choices", []) and not isinstance(value, bool):
        return True
    kinds = rule.get("type", "").split("|") if rule.get("type") else []
    # bool is a subclass of int, and true is no number of epochs
    if not any(isinstance(value, TYPES[kind]) and (kind == "bool") == isinstance(value, bool) for kind in kinds):
        return False
    if isinstance(value, (str, list, bool)):
        return bool(value) or not rule.get("filled", False)
    # limit_*_batches: the type says what the number means, 1 = one batch and 1.0 = all of them
    top = rule.get("max_int", rule.get("max")) if isinstance(value, int) else rule.get("max")
    return (
        value >= rule.get("min", float("-inf"))
        and value > rule.get("above", float("-inf"))
        and value < rule.get("below", float("inf"))
        and value <= (float("inf") if top is None else top)
    )


def describe(rule: dict[str, Any]) -> str:
    """The rule in words, such as "an integer of at least 1 or null"."""
    words = [WORDS[kind] for kind in rule.get("type", "").split("|") if kind]
    text = " or ".join(words)
    bounds = [f"{word} {rule[key]}" for key, word in BOUNDS.items() if rule.get(key) is not None]
    text += f" {' and '.join(bounds)}" if bounds else ""
    choices = ", ".join(str(choice) for choice in rule.get("choices", []))
    text = f"{text} or one of {choices}" if text and choices else text or f"one of {choices}"
    return text + (" or null" if rule.get("null") else "")


BOUNDS = {"min": "of at least", "above": "above", "max": "of at most", "below": "below"}


def leaves(cfg: DictConfig, prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value for every key that holds no further keys."""
    found: dict[str, Any] = {}
    for name, value in (
        OmegaConf.to_container(cfg, resolve=True).items() if isinstance(cfg, DictConfig) else cfg.items()
    ):
        key = f"{prefix}.{name}" if prefix else str(name)
        found.update(leaves(value, key) if isinstance(value, dict) else {key: value})
    return found


def unknown_key(key: str, known: Iterable[str], groups: Iterable[str]) -> str:
    """One sentence that says that the key does not exist, and which one was probably meant."""
    last = key.rpartition(".")[2]
    names = list(known)
    nearest = difflib.get_close_matches(key, names, n=1) or [name for name in names if name.rpartition(".")[2] == last]
    if "." in key and last in set(groups):
        nearest = [f"{last}=NAME"]
    nearest = nearest or difflib.get_close_matches(key, list(groups), n=1)
    return f"Unknown key {key!r}." + (f" Did you mean {nearest[0]}?" if nearest else " --help lists every key.")

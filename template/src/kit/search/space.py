"""What to search, as the command line says it: `optimizer.lr=1e-4..1e-1:log`, `scheduler=cosine,one_cycle`.

Or a file of src/configs/search, which stands for such words.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from itertools import product
from math import prod
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, Any

import yaml
from omegaconf import DictConfig, OmegaConf

from src.kit.config import UserError, load_config, shown_config, unknown, write_config

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

SAMPLERS = ("tpe", "gp", "random", "grid")
PRUNERS = ("median", "none")
PLACES = ("here", "slurm", "ray")
OPTIONS: dict[str, Any] = {"trials": int, "jobs": int, "sampler": SAMPLERS, "pruner": PRUNERS, "objectives": str}
OPTIONS["on"] = PLACES
FILES = Path(__file__).resolve().parents[2] / "configs" / "search"
LESS = ("val/loss", "train/loss", "parameters", "duration_s", "epoch_s")  # objectives of which less is better
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
RANGE = re.compile(rf"({NUMBER})\.\.({NUMBER})((?::\w+)*)")
LOOKS_LIKE_A_RANGE = re.compile(r"[^/\\]+\.\.[^/\\]+")  # no path
FIXED = ("name", "output_dir", "task", "experiment")  # what a search cannot vary
DIGITS = 5  # of a number that is drawn
MOST_CHECKED = 30  # combinations of groups' options
USAGE = "write KEY=LOW..HIGH, with :log or :int behind it if wanted, or KEY=A,B,C"


@dataclass(frozen=True)
class Dimension:
    """One key and its values: `choices`, or all numbers from `low` to `high`, both included."""

    key: str
    text: str
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    whole: bool = False
    log: bool = False

    def suggest(self, trial: "BaseTrial") -> str:
        """Draw a value, or return the one that the trial has already, as it is written on the command line."""
        if self.choices:
            return str(trial.suggest_categorical(self.key, self.choices))
        if self.whole:
            return str(trial.suggest_int(self.key, int(self.low), int(self.high), log=self.log))
        return self.write(trial.suggest_float(self.key, self.low, self.high, log=self.log))

    def write(self, value: Any) -> str:
        """A value with few digits, which nobody minds to copy, and within the bounds."""
        if self.choices or self.whole:
            return str(value)
        return repr(min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high))

    @property
    def values(self) -> list[Any]:
        """All values, if they can be counted out; else none."""
        if self.whole and not self.log:
            return list(range(int(self.low), int(self.high) + 1))
        return list(self.choices)

    def examples(self) -> list[str]:
        """All choices, or the ends and the middle of a range."""
        middle = (self.low * self.high) ** 0.5 if self.log else (self.low + self.high) / 2
        numbers = (self.low, int(middle) if self.whole else middle, self.high)
        return [*self.choices] or [self.write(int(number) if self.whole else number) for number in numbers]


@dataclass(frozen=True)
class Plan:
    """A search: what varies, what every trial has in common, and how to choose the next trial."""

    dimensions: tuple[Dimension, ...]
    fixed: tuple[str, ...] = ()
    trials: int = 20
    jobs: int = 1
    sampler: str = "tpe"
    pruner: str = "median"
    objectives: tuple[tuple[str, str], ...] = ()  # (name, "min", "max" or ""); none: the task's own score
    on: str = "here"  # where trials are trained: this machine, steps of the SLURM job that this is in, tasks of Ray

    @property
    def folder(self) -> str:
        """The folder's name. The same dimensions, fixed words and sampler have the same folder, whenever they start."""
        words: list[Any] = [sorted(f"{part.key}={part.text}" for part in self.dimensions), sorted(self.fixed)]
        words += [self.sampler, *([self.objectives] if self.objectives else [])]
        digest = hashlib.sha256(json.dumps(words).encode()).hexdigest()[:6]
        keys = "-".join(key.rpartition(".")[2] for key in sorted(part.key for part in self.dimensions))
        return f"search-{re.sub(r'[^A-Za-z0-9_-]', '_', keys)[:40]}-{digest}"

    @cached_property
    def combinations(self) -> list[dict[str, Any]]:
        """Every combination of values, for a grid."""
        keys = [part.key for part in self.dimensions]
        return [dict(zip(keys, values, strict=True)) for values in product(*(part.values for part in self.dimensions))]

    def check(self) -> None:
        """Refuse keys and values that no configuration takes, before anything is trained.

        Raises:
            UserError: the configuration's own sentence, such as the nearest key.
        """
        if self.on == "slurm" and not ("SLURM_JOB_ID" in os.environ and which("srun")):
            raise UserError("--on slurm makes each trial a step of a job: run this in a job script (sbatch) or salloc.")
        if self.on == "ray" and not find_spec("ray"):
            raise UserError("--on ray needs Ray: install the version of your cluster, such as with pip install ray.")
        load_config(self.fixed)
        options = [part for part in self.dimensions if part.choices and "." not in part.key]
        others = [part for part in self.dimensions if part not in options]
        for chosen in list(product(*(part.choices for part in options)))[:MOST_CHECKED]:
            groups = [f"{part.key}={name}" for part, name in zip(options, chosen, strict=True)]
            for row in range(max([1, *(len(part.examples()) for part in others)])):
                values = [(part, part.examples()[min(row, len(part.examples()) - 1)]) for part in others]
                self.check_one([*self.fixed, *groups], values)

    def check_one(self, words: Sequence[str], values: Sequence[tuple[Dimension, str]]) -> None:
        """Refuse a combination; a number with a fraction for a key of whole ones gets the way to write that."""
        try:
            cfg = load_config([*words, *(f"{part.key}={value}" for part, value in values)])
        except UserError as error:
            for part, value in values:
                if "an integer" in str(error) and str(error).startswith(part.key) and not part.whole and "." in value:
                    raise UserError(f"{part.key} takes whole numbers: write {part.key}={part.text}:int.") from error
            raise
        if cfg.trainer.folds:
            raise UserError("A trial is one run: leave trainer.folds out, and cross-validate the best trial.")


def read_plan(argv: Sequence[str]) -> Plan:
    """Read `search.py`'s command line; words after `--`, and those with a single value, are every trial's.

    `search=NAME` stands for the words and options of src/configs/search/NAME.yaml, over which all others win.

    Raises:
        UserError: says what cannot be read and how to write it.
    """
    words, options = take_options(argv)
    words, options = add_file(words, options)
    after = words.index("--") if "--" in words else len(words)
    dimensions, fixed = [], list(words[after + 1 :])
    for word in words[:after]:
        key, _, text = word.partition("=")
        dimension = read_dimension(key, text)
        if dimension:
            dimensions.append(dimension)
        else:
            fixed.append(word)
    refuse_doubles(dimensions, fixed)
    if len(options.get("objectives", ())) > 1 and options.setdefault("pruner", "none") != "none":
        raise UserError("--pruner median needs one score to compare trials by: leave it out with several --objectives.")
    plan = Plan(tuple(dimensions), tuple(fixed), **options)
    if plan.sampler == "grid":
        if endless := next((part for part in dimensions if not part.values), None):
            raise UserError(f"--sampler grid needs lists: write {endless.key}=A,B,C instead of {endless.text}.")
        every = prod(len(part.values) for part in dimensions)
        return replace(plan, trials=min(every, options.get("trials", every)))
    return plan


def take_options(argv: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Split `--trials N` and the like off the words."""
    words: list[str] = []
    options: dict[str, Any] = {}
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        name, equals, text = word.partition("=")
        if word == "--":
            return [*words, "--", *rest], options
        if not name.startswith("--"):
            words.append(word)
            continue
        if name[2:] not in OPTIONS:
            raise UserError(unknown("option", name, [f"--{kind}" for kind in OPTIONS]))
        options[name[2:]] = read_option(name, name[2:], text if equals else rest.pop(0) if rest else "")
    return words, options


def read_option(shown: str, name: str, value: str) -> Any:
    """An option's value; `shown` is what the user calls it."""
    kind = OPTIONS[name]
    if kind is int and not re.fullmatch(r"0*[1-9]\d{0,6}", value):
        raise UserError(f"{shown} must be a whole number of at least 1, not {value!r}.")
    if isinstance(kind, tuple) and value not in kind:
        raise UserError(f"{shown} must be one of {', '.join(kind)}, not {value!r}.")
    return int(value) if kind is int else read_objectives(shown, value) if kind is str else value


def read_objectives(shown: str, text: str) -> tuple[tuple[str, str], ...]:
    """`"val/accuracy,parameters:min"` -> (("val/accuracy", ""), ("parameters", "min"))."""
    parts = [(name, mode) for name, _, mode in (part.strip().partition(":") for part in re.split(r"[,|]", text))]
    names = [name for name, _ in parts]
    if "" in names or len(set(names)) < len(names) or {mode for _, mode in parts} - {"", "min", "max"}:
        raise UserError(
            f"{shown} are names of scores, each once, with :min or :max behind it if wanted, such as "
            f"val/accuracy,parameters:min, not {text!r}."
        )
    return tuple((name, mode or ("min" if name in LESS else "")) for name, mode in parts)


def add_file(words: Sequence[str], options: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """Put the words and options of the file that `search=NAME` names below those of the command line.

    Raises:
        UserError: there is no such file, or something else than options and keys in it.
    """
    names = [word.partition("=")[2] for word in words if word.startswith("search=")]
    if not names:
        return list(words), options
    known = sorted(path.stem for path in FILES.glob("*.yaml"))
    if len(names) > 1 or names[0] not in known:
        raise UserError(unknown("search", ",".join(names), known) + " A search is a file of src/configs/search.")
    path = FILES / f"{names[0]}.yaml"
    try:
        held = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from error
    keys = held.pop("keys", None) if isinstance(held, dict) else None
    if not isinstance(keys, dict) or not keys:
        raise UserError(f"{path} needs keys: and below it what to search, such as optimizer.lr: 1e-4..1e-1:log.")
    if wrong := next((name for name in held if name not in OPTIONS), None):
        raise UserError(f"{path}: {unknown('option', str(wrong), [*OPTIONS, 'keys'])}")
    given = {name: read_option(f"{path}: {name}", name, as_text(value)) for name, value in held.items()}
    mine = {word.partition("=")[0] for word in words}
    own = [f"{key}={as_text(value)}" for key, value in keys.items() if key not in mine]
    return [*own, *(word for word in words if not word.startswith("search="))], {**given, **options}


def as_text(value: Any) -> str:
    """A value of a file as the command line has it: a list is a choice."""
    if isinstance(value, list):
        return "|".join(map(as_text, value))
    return value if isinstance(value, str) else json.dumps(value, default=str)


def read_dimension(key: str, text: str) -> Dimension | None:
    """`("optimizer.lr", "1e-4..1e-1:log")` -> a dimension; None if the text is a single value.

    Raises:
        UserError: a range or a list that cannot be.
    """
    if found := RANGE.fullmatch(text):
        return read_range(key, text, float(found[1]), float(found[2]), found[3].split(":")[1:])
    if LOOKS_LIKE_A_RANGE.fullmatch(text) and "|" not in text and "," not in text:
        raise UserError(f"Cannot read {key}={text}: {USAGE}.")
    brackets = any(letter in text for letter in "[{\"'")
    choices = text.split("|") if "|" in text else text.split(",") if "," in text and not brackets else []
    if not choices:
        return None
    if "" in choices or len(set(choices)) < len(choices):
        raise UserError(f"{key}={text} has {'an empty value' if '' in choices else 'a value twice'}: {USAGE}.")
    return Dimension(key, text, tuple(choices))


def read_range(key: str, text: str, low: float, high: float, marks: Sequence[str]) -> Dimension:
    """A range whose ends are in order and that its marks allow."""
    if wrong := next((mark for mark in marks if mark not in ("log", "int")), None):
        raise UserError(f"{key}={text} ends with :{wrong}: {USAGE}.")
    if low >= high:
        raise UserError(f"{key}={text} is empty: its second number must be above the first.")
    if "log" in marks and low <= 0:
        raise UserError(f"{key}={text} cannot be logarithmic: start above 0, or leave :log out.")
    if "int" in marks and not (low.is_integer() and high.is_integer()):
        raise UserError(f"{key}={text} takes whole numbers only: write whole ends, or leave :int out.")
    return Dimension(key, text, (), low, high, "int" in marks, "log" in marks)


def refuse_doubles(dimensions: Sequence[Dimension], fixed: Sequence[str]) -> None:
    """Refuse a search of nothing, of the same key twice, and of keys that a search sets itself."""
    if not dimensions:
        raise UserError(f"Nothing to search: {USAGE}, such as optimizer.lr=1e-4..1e-1:log.")
    keys = [*(part.key for part in dimensions), *(word.partition("=")[0] for word in fixed)]
    if double := next(repeated(keys), None):
        raise UserError(f"{double} is given twice: leave one out.")
    for part in dimensions:
        if part.key in FIXED:
            raise UserError(f"{part.key} cannot be searched: give it one value.")


def repeated(keys: Sequence[str]) -> Iterator[str]:
    """Keys that come more than once."""
    return (key for number, key in enumerate(keys) if key in keys[:number])


def keep_config(cfg: DictConfig, folder: Path) -> None:
    """Save what all trials have in common when a search begins; later ones must have the same.

    Raises:
        UserError: a file of src/configs has been changed since.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        write_config(cfg, path)
        return
    saved, now = OmegaConf.load(path), OmegaConf.create(shown_config(cfg))
    for group, values in saved.items():
        keys = [f"{group}.{name}" for name in values] if isinstance(values, DictConfig) else [str(group)]
        for key in keys:
            old, new = OmegaConf.select(saved, key), OmegaConf.select(now, key)
            if old != new:
                raise UserError(
                    f"{key} was {old} when this search began and is {new} now: change it back, or start another search "
                    f"by adding a name, such as name=second."
                )

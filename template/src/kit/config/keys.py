"""Check a configuration's keys: their names, types and ranges.

A key of the kit has a row in a `keys.yaml` (of this package, or of another one of the kit); a key of a component is an
argument of its `build`, so types and bounds come from the signature."""

import ast
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from src.kit.config.aliases import LOADER
from src.kit.config.components import (
    FRAMEWORKS,
    PLACES,
    SRC,
    Argument,
    check_listed,
    existing_component,
    find_component,
    load_component,
    returned,
    signature,
)
from src.kit.errors import UserError, refuse_url

KIT = Path(__file__).resolve().parents[1]
TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "str": (str,),
    "list": (list,),
    "dict": (dict,),
}
WORDS = {
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "list": "a list",
    "dict": "a mapping",
}
SEQUENCES = ("list", "tuple", "Sequence", "collections.abc.Sequence")
MANY = {"int": "integers", "float": "numbers", "str": "texts"}
LARGEST = 2**63  # what the frameworks' whole numbers hold
COMPONENTS = ("model", "data", "loss", "optimizer", "scheduler", "tracker")  # each must have its file
OPEN = (
    "trainer.extra",
    "trainer.callbacks",
    "trainer.metrics",
)  # whatever is below goes to the framework or to a callback as it is

Rule = dict[str, Any]  # type, choices, min, max, above, below, null, filled, items, length, file_name, local, help
BOUNDS = {"min": "of at least", "above": "above", "max": "of at most", "below": "below"}
GENERAL_KEYS = (
    "name",
    "file",
    "tasks",
    "pretrained",
    "weights",
    "freeze",
    "lora",
    "decay_norms_and_biases",
    "layer_decay",
)  # of any group: arguments of `build` only where its signature names them


@cache
def reference() -> dict[str, Rule]:
    """Dotted key -> rule, from the `keys.yaml` of every package of the kit that this project has."""
    rows: dict[str, Rule] = {}
    for path in sorted(KIT.glob("*/keys.yaml"), key=lambda path: path.parent.name != "config"):
        rows |= yaml.load(path.read_text("utf-8"), LOADER)
    rows["framework"]["choices"] = [name for name in FRAMEWORKS if (SRC / "trainers" / f"{name}.py").exists()]
    rows["task"]["choices"] = sorted(path.stem for path in (SRC / "configs" / "task").glob("*.yaml"))
    return rows


def component_rules(cfg: Mapping[Any, Any]) -> dict[str, Rule]:
    """Dotted key -> rule for the arguments of the components that `cfg` chooses."""
    rules: dict[str, Rule] = {}
    for group in PLACES:
        part = cfg.get(group)
        if isinstance(part, (dict, DictConfig)):
            path = component_file(group, part, cfg["framework"])
            arguments = signature(path) if path else {}
            own = [name for name in arguments if name in part and name not in GENERAL_KEYS]
            rules |= {f"{group}.{name}": rule_of(arguments[name]) for name in own}
    return rules


def component_file(group: str, part: Mapping[Any, Any], framework: str) -> Path | None:
    """The source of the component that a group's configuration names: its `file`, or else its `name`."""
    name = part.get("file") or part.get("name")
    return find_component(group, str(name), str(framework)) if name else None


def rule_of(argument: Argument) -> Rule:
    """The rule in an argument's annotation: `int | None`, `Literal["a", "b"]`, `Sequence[float]`, ..."""
    rule: Rule = {"help": argument.help, **argument.bounds}
    kinds: list[str] = []
    for part in split_union(argument.annotation):
        base = part.partition("[")[0].rpartition(".")[2]
        if part == "None":
            rule["null"] = True
        elif base == "Literal":
            choices = ast.literal_eval(part.partition("[")[2].rpartition("]")[0] + ",")
            rule["choices"] = [*rule.get("choices", []), *choices]
        elif base in SEQUENCES:
            kinds.append("list")
            rule |= rule_of_items(part, base)
        elif base in ("dict", "Mapping"):
            kinds.append("dict")
        elif base in TYPES:
            kinds.append(base)
    if argument.annotation and kinds:
        rule["type"] = "|".join(kinds)
    return rule | ({"filled": True} if "str" in kinds else {})


def rule_of_items(annotation: str, base: str) -> Rule:
    """`Sequence[int]` -> whole numbers; `tuple[float, float]` -> two numbers."""
    kinds = [kind.strip() for kind in annotation.partition("[")[2].removesuffix("]").split(",")]
    if kinds[0] not in MANY:
        return {}
    return {"items": kinds[0]} | ({"length": len(kinds)} if base == "tuple" and kinds[-1] != "..." else {})


def split_union(annotation: str) -> list[str]:
    """`"int | Literal['a | b']"` -> its parts, read as Python."""
    if not annotation:
        return []

    def parts(node: ast.expr) -> list[str]:
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            return [*parts(node.left), *parts(node.right)]
        return [ast.unparse(node)]

    return parts(ast.parse(annotation, mode="eval").body)


def check(cfg: DictConfig) -> None:
    """Refuse the first value that its rule does not allow; turn whole numbers into floats where the rule says float.

    Raises:
        UserError: names the key, what it allows and the value.
    """
    rules = reference() | component_rules(cfg)
    for key in {name.rpartition(".")[0] for name in rules if name.count(".") > 1}:
        if not isinstance(OmegaConf.select(cfg, key, default=cfg), DictConfig):
            inside = ", ".join(sorted(name for name in rules if name.startswith(f"{key}.")))
            raise UserError(f"{key} is a group of keys, not a value: set one of {inside}.")
    refuse_mappings(cfg, rules, flat := leaves(cfg))
    for key, value in flat.items():
        if not (rule := rules.get(key)):
            continue
        if key == "framework" and value in FRAMEWORKS and value not in rule["choices"]:
            raise UserError(f"This project has no {value} yet: add it with `copier update --data framework=both`.")
        if not allowed(value, rule):
            raise UserError(f"{key} must be {describe(rule)}, not {shorten(value)}.")
        if rule.get("local"):
            refuse_url(str(value), f"{key}=")
        if rule.get("type") == "float" and isinstance(value, int) and not isinstance(value, bool):
            OmegaConf.update(cfg, key, float(value))
    for group in COMPONENTS:
        part = cfg.get(group)
        if isinstance(part, DictConfig) and (group, part.get("name")) != ("tracker", "none"):
            name = str(part.get("file") or part.get("name"))
            path = existing_component(group, name, str(cfg.framework), str(part.get("name")))
            check_listed(path, str(part.get("name")))
            if encoder := part.get("encoder"):  # a network of timm within another
                check_listed(existing_component(group, "timm", str(cfg.framework)), str(encoder))


def refuse_mappings(cfg: DictConfig, rules: Mapping[str, Rule], flat: Mapping[str, Any]) -> None:
    """Refuse keys inside a value, as in `every_n_steps: {a: 1}`, which `leaves` would take for keys without a rule.

    Raises:
        UserError: names the key, what it allows and the value.
    """
    for key, rule in rules.items():
        value = None if key in flat else OmegaConf.select(cfg, key, throw_on_resolution_failure=False)
        takes_none = (rule.get("type") or rule.get("choices")) and "dict" not in str(rule.get("type"))
        if isinstance(value, DictConfig) and takes_none and not any(name.startswith(f"{key}.") for name in rules):
            raise UserError(f"{key} must be {describe(rule)}, not {shorten(OmegaConf.to_container(value))}.")


def allowed(value: Any, rule: Mapping[str, Any]) -> bool:
    """Whether a value is null where that is allowed, one of the choices, or of the type and within the range."""
    if value is None:
        return bool(rule.get("null"))
    if not isinstance(value, bool) and value in rule.get("choices", []):
        return True
    if not rule.get("type"):
        return not rule.get("choices")
    # bool is a subclass of int, and true is not a number of epochs
    kinds = rule["type"].split("|")
    if not any(isinstance(value, TYPES[kind]) and (kind == "bool") == isinstance(value, bool) for kind in kinds):
        return False
    if isinstance(value, str) and not allowed_text(value, rule):
        return False
    if isinstance(value, list) and not allowed_items(value, rule):
        return False
    if isinstance(value, (str, list, dict, bool)):
        return bool(value) or not rule.get("filled", False)
    return in_range(value, rule)


def in_range(value: float, rule: Mapping[str, Any]) -> bool:
    """Whether a number is finite and within the rule's bounds."""
    # limit_*_batches: the type says what the number means, 1 = one batch and 1.0 = all of them
    top = rule.get("max_int", rule.get("max")) if isinstance(value, int) else rule.get("max")
    return (
        abs(value) < (LARGEST if isinstance(value, int) else float("inf"))
        and value >= rule.get("min", float("-inf"))
        and value > rule.get("above", float("-inf"))
        and value < rule.get("below", float("inf"))
        and value <= (float("inf") if top is None else top)
    )


def allowed_text(value: str, rule: Mapping[str, Any]) -> bool:
    """Whether a text can be stored and shown and, where it becomes a folder's name, stays one of a usual length."""
    if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
        return False
    bad = any(letter in "/\\" or not letter.isprintable() for letter in value) or len(value.encode()) > 200
    return not (rule.get("file_name") and bad)


def allowed_items(values: list[Any], rule: Mapping[str, Any]) -> bool:
    """Whether a list has the rule's length, and each item its type and bounds."""
    if rule.get("length") not in (None, len(values)):
        return False
    bounds = {key: rule[key] for key in BOUNDS if key in rule}
    return "items" not in rule or all(allowed(value, {"type": rule["items"], **bounds}) for value in values)


def shorten(value: Any) -> str:
    """A value as Python writes it, without the middle of a long one."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:70]}...{text[-20:]}"


def describe(rule: Mapping[str, Any]) -> str:
    """A rule in words, such as "an integer of at least 1 or null"."""
    choices = [str(choice) for choice in rule.get("choices", [])]
    words = [*choices, *(WORDS[kind] for kind in rule.get("type", "").split("|") if kind)]
    text = " or ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))
    if rule.get("items"):
        text = text.replace("a list", f"a list of {rule.get('length', '')} {MANY[rule['items']]}".replace("  ", " "))
        text += ", each" if any(rule.get(key) is not None for key in BOUNDS) else ""
    if rule.get("file_name"):
        text += " of up to 200 letters without / or \\ that can name a folder"
    bounds = [f"{word} {rule[key]}" for key, word in BOUNDS.items() if rule.get(key) is not None]
    text += f" {' and '.join(bounds)}" if bounds else ""
    if choices and "type" not in rule:
        text = f"one of {', '.join(choices)}"
    return (text or "any value") + (" or null" if rule.get("null") else "")


def leaves(cfg: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value for every key that holds no further keys, or whose keys are free (`OPEN`)."""
    flat: dict[str, Any] = {}
    for name, value in (
        OmegaConf.to_container(cfg, resolve=True).items() if isinstance(cfg, DictConfig) else cfg.items()
    ):
        key = f"{prefix}.{name}" if prefix else str(name)
        flat.update(leaves(value, key) if isinstance(value, dict) and value and key not in OPEN else {key: value})
    return flat


def key_lines(text: str) -> dict[str, int]:
    """Dotted key -> its line (from 1) in a YAML text, for messages; keys that hold others are listed too."""
    lines: dict[str, int] = {}

    def visit(node: yaml.Node | None, prefix: str) -> None:
        if isinstance(node, yaml.MappingNode):
            for name, value in node.value:
                key = f"{prefix}.{name.value}" if prefix else str(name.value)
                lines[key] = name.start_mark.line + 1
                if key not in OPEN:
                    visit(value, key)

    visit(yaml.compose(text, LOADER), "")
    return lines


def build_component(group: str, keys: Mapping[str, Any], framework: str, *positional: Any, **given: Any) -> Any:
    """Call the `build` of the file that `keys` names (`file`, else `name`) with its own keys.

    Args:
        group: "model", "loss", "optimizer" or "scheduler".
        keys: that group of the configuration, such as `cfg.model`.
        positional, given: what the program adds, such as `classes=10`.

    Raises:
        UserError: there is no such file, a value is out of its range, or `build` has other arguments.
    """
    plain = OmegaConf.to_container(keys, resolve=True) if isinstance(keys, DictConfig) else dict(keys)
    name = str(plain.get("file") or plain["name"])
    component = load_component(group, name, framework, str(plain["name"]))
    path = find_component(group, name, framework)
    taken = signature(path) if path else {}
    own = {key: value for key, value in plain.items() if key in taken or key not in GENERAL_KEYS}
    check_values(group, name, framework, own)
    if foreign := set(own) - set(taken):
        raise UserError(
            f"{group}.name={plain['name']} has no {group}.{sorted(foreign)[0]}: choose it by {group}=NAME, which sets "
            "its keys."
        )
    try:
        return returned(component.build(*positional, **given, **own), f"{group}={plain['name']}")
    except TypeError as error:
        if not path or (error.__traceback__ and error.__traceback__.tb_next):  # it was called, and failed later
            raise
        file, known = path.relative_to(SRC.parent).as_posix(), {**given, **own}
        if missing := [key for key, argument in taken.items() if argument.default is ... and key not in known]:
            raise UserError(
                f"{group}={plain['name']} needs the key {missing[0]!r}: add it to src/configs/{group}, or give it a "
                f"default in {file}."
            ) from error
        raise UserError(f"{file}: {error}: take the arguments that the files beside it take.") from error


def check_values(group: str, name: str, framework: str, values: Mapping[str, Any]) -> None:
    """Refuse numbers outside their `Range` and texts outside their `Literal`, wherever the configuration is from."""
    path = find_component(group, name, framework)
    for key, argument in signature(path).items() if path else ():
        rule = rule_of(argument)
        if key in values and not allowed(values[key], rule):
            raise UserError(f"{group}.{key} must be {describe(rule)}, not {values[key]!r}.")

"""Values as they were written, and as they are saved and sent.

Text keys take their text, on the command line and in YAML files. No secret from the environment and no password of a
URL is saved.
"""

import os
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from src.kit.config.components import SRC
from src.kit.config.keys import LOADER, Rule, leaves
from src.kit.errors import MASK, UserError, hide_passwords

TEXTS: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # reads every value as a text
LONGEST = 60  # letters of a title
PLAIN: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "bool": (bool,), "str": (str,)}
PLAIN |= {"None": (type(None),), "NoneType": (type(None),)}  # words of annotations
TEXT, NULL = "tag:yaml.org,2002:str", "tag:yaml.org,2002:null"


def parse(key: str, text: str, rule: Rule) -> Any:
    """An override's value: text keys take it as the shell gave it, all others read it as YAML."""
    if rule.get("type") == "str" and text and not text.startswith("${"):
        return None if text == "null" and rule.get("null") else text
    try:
        value = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]))["value"]
        if isinstance(value, list) and rule.get("items") == "str":
            value = texts(yaml.compose(text, LOADER), value)
    except (OmegaConfBaseException, YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"Cannot read the value of {key!r}: {text[:100]!r} is not valid YAML; quote it.") from error
    return text if isinstance(value, bool) and text in rule.get("choices", []) else keep_names(value, text, key)


def keep_texts(cfg: DictConfig, path: Path, rules: dict[str, Rule], prefix: str = "") -> None:
    """Set the text keys of a file's configuration to the text in the file: YAML reads `yes` as true and 010 as 8."""

    def visit(node: yaml.Node | None, below: str) -> None:
        for name, value in node.value if isinstance(node, yaml.MappingNode) else ():
            key = f"{below}.{name.value}" if below else str(name.value)
            rule = rules.get(f"{prefix}.{key}" if prefix else key, {})
            if rule.get("type") == "str" and isinstance(value, yaml.ScalarNode):
                if value.tag not in (TEXT, NULL):
                    OmegaConf.update(cfg, key, value.value)
            elif rule.get("items") == "str" and isinstance(value, yaml.SequenceNode):
                if isinstance(values := OmegaConf.select(cfg, key), ListConfig):
                    OmegaConf.update(cfg, key, texts(value, list(values)))
            else:
                visit(value, key)

    visit(yaml.compose(path.read_text("utf-8"), LOADER), "")


def texts(node: yaml.Node | None, values: list[Any]) -> list[Any]:
    """A list's items as they were written."""
    items = node.value if isinstance(node, yaml.SequenceNode) else []
    return [
        item.value if isinstance(item, yaml.ScalarNode) and item.tag not in (TEXT, NULL) else value
        for item, value in zip(items, values, strict=True)
    ]


def keep_names(value: Any, text: str, key: str = "") -> Any:
    """The value of a YAML text, with names of classes as they are written: `classes: [yes, 001]`, not True and 1."""
    return with_names(value, yaml.load(text, TEXTS), key.rpartition(".")[2])


def with_names(value: Any, texts: Any, key: str) -> Any:
    """`value` with the names in lists and mappings called `classes` from `texts`, where every value is a text."""
    if isinstance(value, dict) and isinstance(texts, dict):
        if key != "classes":
            return {name: with_names(part, texts.get(name), str(name)) for name, part in value.items()}
        same = len(value) == len(texts)
        parts = list(value.values()) if same else list(texts.values())
        return {name: None if old is None else new for (name, new), old in zip(texts.items(), parts, strict=True)}
    if isinstance(value, list) and isinstance(texts, list):
        if key == "classes":
            return [new if isinstance(new, str) else old for old, new in zip(value, texts, strict=True)]
        return [with_names(part, new, "") for part, new in zip(value, texts, strict=True)]
    return value


def title_of(data: DictConfig) -> str:
    """What to call a data set in reports and folders: its title or name, or that of your own data's folder or file."""
    title = str(data.get("title") or data.name)
    # a path that comes from the environment may hold a secret
    if not data.get("title") and str(data.name) in own_data() and not OmegaConf.is_interpolation(data, "root"):
        root = Path(os.path.abspath(Path(str(data.root)).expanduser()))
        title = root.stem if root.is_file() else root.name
    return re.sub(r"[^\w.-]+", "_", title).strip("._-")[:LONGEST] or str(data.name)


@cache
def own_data() -> set[str]:
    """The data sets whose files are the user's, which therefore all have the same name."""
    paths = (SRC / "configs" / "data").rglob("dataset_spec.yaml")
    tables = [yaml.load(path.read_text("utf-8"), LOADER) for path in paths]
    return {
        name
        for table in tables
        for name, entry in table.items()
        if isinstance(entry, dict) and entry.get("access") == "own"
    }


def read(path: Path) -> DictConfig:
    """Read one YAML file as a configuration."""
    try:
        cfg = OmegaConf.load(path)
        if re.search(r"\bclasses\b", text := path.read_text("utf-8")):
            cfg = OmegaConf.create(keep_names(OmegaConf.to_container(cfg), text))
    except UnicodeDecodeError as error:
        raise UserError(f"{shown(path)} is not text in UTF-8: save it as UTF-8.") from error
    except (YAMLError, OmegaConfBaseException, RecursionError) as error:
        raise UserError(f"{shown(path)} is not valid YAML: {' '.join(str(error).split())}.") from error
    except OSError as error:  # OmegaConf's, for a number
        raise UserError(f"{shown(path)} must hold keys and values: {error}.") from error
    if not isinstance(cfg, DictConfig):
        raise UserError(f"{shown(path)} must hold keys and values.")
    return cfg


def shown(path: Path) -> Path:
    """A path of the project as users know it: below the project's folder."""
    root = SRC.parent
    return path.relative_to(root) if path.is_relative_to(root) else path


def contents(cfg: DictConfig) -> dict[str, Any]:
    """A configuration as plain mappings, with its interpolations as they are written."""
    values: Any = OmegaConf.to_container(cfg, resolve=False)
    return dict(values)


def overlay(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """Merge mappings, and those below the same keys: later values win."""
    merged: dict[str, Any] = {}
    for key, value in (item for part in parts for item in part.items()):
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = overlay(merged[key], value) if both else value
    return merged


def write_config(cfg: DictConfig, path: Path) -> None:
    """Save a configuration, as `shown_config` gives it."""
    from src.kit.storage import write_text  # here, since --help does without it

    write_text(path, OmegaConf.to_yaml(OmegaConf.create(shown_config(cfg))))


def shown_config(cfg: DictConfig) -> dict[str, Any]:
    """A configuration as plain mappings, to save or to send: for config.yaml, trackers and checkpoints.

    Interpolations are resolved, except those that read the environment, directly or through another key: a token in
    `${oc.env:TOKEN}` stays a name. Passwords in URLs become `***`.
    """
    raw: Any = OmegaConf.to_container(cfg, resolve=False)
    resolved: Any = OmegaConf.to_container(cfg, resolve=True)
    unresolved = {key: value for key, value in flat(raw).items() if isinstance(value, str) and "${" in value}
    kept = {key for key, value in unresolved.items() if "oc." in value or "${." in value}
    while more := {
        key for key, value in unresolved.items() if key not in kept and any(f"${{{other}}}" in value for other in kept)
    }:
        kept |= more
    return dict(merge(raw, resolved, kept))


def merge(raw: Any, resolved: Any, kept: set[str], key: str = "") -> Any:
    """`resolved`, with the raw text of the keys in `kept` and without passwords."""
    if key in kept:
        return hide_passwords(raw)
    if isinstance(resolved, dict):
        inner = raw if isinstance(raw, dict) else resolved
        return {name: merge(inner[name], value, kept, below(key, name)) for name, value in resolved.items()}
    if isinstance(resolved, list):
        items = raw if isinstance(raw, list) else resolved
        return [merge(items[n], value, kept, below(key, n)) for n, value in enumerate(resolved)]
    return hide_passwords(resolved) if isinstance(resolved, str) else resolved


def flat(values: Any, key: str = "") -> dict[str, Any]:
    """Dotted key -> value; the items of a list by their number."""
    items: Any = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else None
    if items is None:
        return {key: values}
    return {name: leaf for inner, value in items for name, leaf in flat(value, below(key, inner)).items()}


def below(key: str, name: Any) -> str:
    """`("data", "root")` -> `"data.root"`."""
    return f"{key}.{name}" if key else str(name)


def masked_keys(path: Path) -> set[str]:
    """The keys of a saved config.yaml whose passwords were left out; they have to be given again."""
    values = flat(OmegaConf.to_container(OmegaConf.load(path))) if path.is_file() else {}
    return {key for key, value in values.items() if is_masked(value)}


def passwords(cfg: DictConfig) -> list[str]:
    """The overrides `key=value` that a process needs besides the saved configuration."""
    return [f"{key}={value}" for key, value in leaves(cfg).items() if is_masked(hide_passwords(str(value)))]


def is_masked(value: Any) -> bool:
    """Whether a value is a URL without its password."""
    return isinstance(value, str) and MASK in value and "://" in value


def refuse_masked(cfg: DictConfig) -> None:
    """Ask for the passwords that a saved configuration does not have.

    Raises:
        UserError: names the first key.
    """
    for key, value in leaves(cfg).items():
        if is_masked(value):
            raise UserError(
                f"config.yaml does not keep the password of {key}={value}: give it again as {key}=URL, or write "
                "${oc.env:NAME} in its place when you start a run."
            )


def refuse_extra(extra: Mapping[str, Any], function: Callable[..., Any], name: str, own: Mapping[str, str]) -> None:
    """Check `trainer.extra` against the framework's function that it is passed to.

    Args:
        extra: the arguments.
        function: the annotations of its parameters tell which values it takes.
        name: the function's, for messages.
        own: parameters that this project sets, and what to do instead.

    Raises:
        UserError: a key that the function does not know or that this project sets, or a value of another type.
    """
    import inspect  # here, since --help does without it

    known = inspect.signature(function).parameters
    for key, value in extra.items():
        if key not in known:
            raise UserError(f"trainer.extra has a key that {name} does not know: {key}.")
        if key in own:
            raise UserError(f"trainer.extra.{key} cannot be set: {own[key]}.")
        words = dict.fromkeys(re.findall(r"\w+", str(known[key].annotation)))
        named = [word for word in words if word not in ("typing", "Optional", "Union", "class")]
        types = tuple(kind for word in named for kind in PLAIN.get(word, (object,)))
        if not isinstance(value, types) or (isinstance(value, bool) and not {bool, object} & set(types)):
            wanted = " or ".join("null" if "None" in word else word for word in named)
            raise UserError(f"trainer.extra.{key} must be {wanted}, not {value!r}.")

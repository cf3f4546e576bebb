"""A configuration as it is saved and sent: no secret from the environment, no password of a URL."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from src.kit.config.keys import leaves
from src.kit.errors import MASK, UserError, hide_passwords
from src.kit.storage import write_text


def write_config(cfg: DictConfig, path: Path) -> None:
    """Save a configuration, as `shown_config` gives it."""
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

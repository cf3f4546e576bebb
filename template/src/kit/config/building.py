"""Build what the configuration names: call a component's `build` with the keys of its group."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from src.kit.config.components import find_component, load_component, signature
from src.kit.config.errors import UserError
from src.kit.config.keys import allowed, describe, rule_of

GENERAL_KEYS = ("name", "file", "tasks", "pretrained", "weights")  # of any group: no arguments of `build`


def build_component(group: str, keys: Mapping[str, Any], framework: str, *positional: Any, **given: Any) -> Any:
    """Call the `build` of the file that `keys` names (`file`, else `name`) with its own keys.

    Args:
        group: "model", "loss", "optimizer" or "scheduler".
        keys: that group of the configuration, such as `cfg.model`.
        positional, given: what the program adds, such as `classes=10`.

    Raises:
        UserError: there is no such file, or a value is out of its range.
    """
    plain = OmegaConf.to_container(keys, resolve=True) if isinstance(keys, DictConfig) else dict(keys)
    name = str(plain.get("file") or plain["name"])
    component = load_component(group, name, framework)
    own = {key: value for key, value in plain.items() if key not in GENERAL_KEYS}
    check_values(group, name, framework, own)
    return component.build(*positional, **given, **own)


def check_values(group: str, name: str, framework: str, values: Mapping[str, Any]) -> None:
    """Refuse numbers outside their `Range` and texts outside their `Literal`, wherever the configuration is from."""
    path = find_component(group, name, framework)
    for key, argument in signature(path).items() if path else ():
        rule = rule_of(argument)
        if key in values and not allowed(values[key], rule):
            raise UserError(f"{group}.{key} must be {describe(rule)}, not {values[key]!r}.")

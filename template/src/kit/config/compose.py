"""Compose a run's configuration from `src/configs` and the command line; imports no framework."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from src.kit.config.errors import UserError
from src.kit.config.registry import unknown
from src.kit.config.schema import check, describe, leaves, reference, unknown_key

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
TABLES = ("dataset_spec", "debug_datasets", "production_datasets")  # of configs/data: what is known of the data sets
PRESETS = ("task", "experiment")  # files that choose options of the other groups; a later one wins


def load_config(argv: Sequence[str], base: Path | None = None) -> DictConfig:
    """Merge config.yaml, one file of each group, the presets and the command line, in this order.

    Args:
        argv: `group=option` (`model=resnet18`), `task=name`, `experiment=name` and `dotted.key=value`, in any order.
        base: a saved config.yaml that replaces everything but the command line.

    Returns:
        A configuration in struct mode: reading a key that does not exist is an error.

    Raises:
        UserError: an unknown group, option or key (with the nearest name), or a value out of its range.
    """
    overrides = [split(argument) for argument in argv]
    groups = {path.name for path in CONFIGS.iterdir() if path.is_dir()}
    chosen = {key: str(value) for key, value in overrides if key in groups}
    try:
        cfg = load_saved(base, chosen) if base else compose(chosen)
        for key, value in overrides:
            if key not in groups:
                override(cfg, key, value, groups)
        check(cfg)
    except (OmegaConfBaseException, YAMLError) as error:
        raise UserError(f"The configuration cannot be read: {' '.join(str(error).split())}.") from error
    OmegaConf.set_struct(cfg, True)
    return cfg


def override(cfg: DictConfig, key: str, value: Any, groups: set[str]) -> None:
    """Set a key that exists already."""
    old = OmegaConf.select(cfg, key, default=...)  # a key whose value is null exists
    if old is ...:
        raise UserError(unknown_key(key, leaves(cfg), groups))
    if isinstance(old, DictConfig) and not isinstance(value, dict):
        raise UserError(f"{key} is a group of keys: set one of {', '.join(leaves(old, key))}.")
    OmegaConf.update(cfg, key, value)


def split(argument: str) -> tuple[str, Any]:
    """`"a.b=1"` -> `("a.b", 1)`: the value is read as YAML."""
    key, equals, text = argument.partition("=")
    if key in ("-m", "--multirun"):
        raise UserError("-m is not supported: run the command once for each value.")
    if key.startswith(("+", "~")):
        raise UserError(f"{key!r}: every key is declared, so write {key.lstrip('+~')}=VALUE (null unsets it).")
    if not equals or not key:
        raise UserError(f"Cannot read {argument!r}: write key=value, such as trainer.max_epochs=1, or --help.")
    try:
        return key, OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]))["value"]
    except (OmegaConfBaseException, YAMLError) as error:
        raise UserError(f"Cannot read the value of {key!r}: {text!r} is no YAML; quote it.") from error


def compose(chosen: dict[str, str]) -> DictConfig:
    """Merge the groups' files (`chosen` over the presets' over config.yaml's defaults) and their own keys."""
    parts = [read(CONFIGS / "config.yaml"), *(option(group, chosen[group]) for group in PRESETS if group in chosen)]
    options: dict[str, str] = {}
    for part in parts:
        for entry in part.pop("defaults", []):
            options.update(entry)
    options.update({group: name for group, name in chosen.items() if group not in PRESETS})
    cfg = OmegaConf.create({group: option(group, name) for group, name in options.items()})
    return OmegaConf.merge(cfg, *parts)


def option(group: str, name: str) -> DictConfig:
    """`<group>/<name>.yaml`, over the group's `default.yaml` if there is one: files state only differences."""
    if name not in option_names(group):
        raise UserError(unknown(group, name, option_names(group)))
    base = CONFIGS / group / "default.yaml"
    return OmegaConf.merge(read(base) if base.exists() else {}, read(next((CONFIGS / group).rglob(f"{name}.yaml"))))


def option_names(group: str) -> list[str]:
    """What can be chosen; a data set's defaults are no data set, a trainer's are a trainer."""
    names = sorted(path.stem for path in (CONFIGS / group).rglob("*.yaml"))
    return [name for name in names if name not in TABLES and (name != "default" or group == "trainer")]


def read(path: Path) -> DictConfig:
    """Read one YAML file as a configuration."""
    cfg = OmegaConf.load(path)
    if not isinstance(cfg, DictConfig):
        raise UserError(f"{path} must hold keys and values.")
    return cfg


def load_saved(path: Path, chosen: dict[str, str]) -> DictConfig:
    """Read a run's merged configuration, with other options for the chosen groups."""
    if not path.is_file():
        raise UserError(
            f"{path} does not exist: name a run's folder, such as outputs/small_cnn-digits-20260101-120000."
        )
    saved = read(path)
    # a run of an earlier version lacks the keys that have been added since
    added = {base.parent.name: read(base) for base in CONFIGS.glob("*/default.yaml") if base.parent.name in saved}
    cfg = OmegaConf.merge(added, saved)
    for group, name in chosen.items():
        if group in PRESETS:
            raise UserError(f"A run keeps its {group}: leave {group}={name} out, or start a new run without --from.")
        cfg[group] = option(group, name)
    return cfg


def write_config(cfg: DictConfig, path: Path) -> None:
    """Save the merged configuration, interpolations resolved."""
    path.write_text(OmegaConf.to_yaml(cfg, resolve=True), "utf-8")


def help_text() -> str:
    """Every group and key of the configuration, without importing a framework."""
    lines = ["Groups (group=option):"]
    for group in sorted(path.name for path in CONFIGS.iterdir() if path.is_dir()):
        lines.append(f"  {group:<12} {', '.join(option_names(group))}")
    lines += ["", "Keys (key=value), with their defaults:"]
    defaults = leaves(compose({}))
    for key, rule in reference().items():
        default = OmegaConf.to_yaml({"v": defaults[key]})[3:].strip().replace("\n", " ") if key in defaults else "-"
        lines.append(f"  {key + '=' + default:<44} {rule['help']} ({describe(rule)})")
    return "\n".join(lines) + "\n"

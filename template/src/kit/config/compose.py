"""Compose a run's configuration from `src/configs` and the command line; imports no framework."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from src.kit.config.aliases import DUMPER, refuse_foreign, understand, unknown_key
from src.kit.config.components import PLACES, path_as_data, signature, unknown, unknown_option
from src.kit.config.keys import (
    OPEN,
    allowed,
    check,
    component_file,
    component_rules,
    describe,
    key_lines,
    leaves,
    reference,
    rule_of,
)
from src.kit.config.values import contents, keep_texts, overlay, parse, read, refuse_masked, shown, title_of
from src.kit.errors import UserError, refuse_url

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
DATA_TABLES = ("dataset_spec", "debug_datasets", "production_datasets")  # YAML files of `data` that are no options
PRESETS = ("task", "experiment")  # files that choose options of the other groups; a later one wins
GENERAL: dict[str, dict[str, Any]] = {  # keys of any component of a group, with their defaults
    "model": {"tasks": None, "pretrained": False, "weights": None, "freeze": None, "lora": None},
    "optimizer": {"decay_norms_and_biases": False, "layer_decay": 1.0},
    "loss": {"tasks": None},
    "scheduler": {"warmup_epochs": 0},
}


def load_config(argv: Sequence[str] = (), base: Path | None = None) -> DictConfig:
    """Merge config.yaml, one file of each group, the presets and the command line, in this order.

    Args:
        argv: `group=option` (`model=resnet18`), `task=name`, `experiment=name` and `dotted.key=value`, in any order.
        base: a saved config.yaml that replaces everything but the command line.

    Returns:
        A configuration in struct mode: reading a key that does not exist is an error.

    Raises:
        UserError: an unknown group, option or key (with the nearest name), in a file too (with its line), or a value
            out of its range.
    """
    names = group_names()
    overrides = [split(argument, names) for argument in argv]
    chosen = {key: text for key, text in overrides if key in names}
    try:
        framework = next((text for key, text in reversed(overrides) if key == "framework"), None)
        cfg = load_saved(base, chosen, framework) if base else compose(chosen, framework)
        for key, text in overrides:
            if key not in names:
                override(cfg, key, text, names)
        if "title" in cfg.data:
            cfg.data.title = title_of(cfg.data)
        check(cfg)
        shorten(cfg)
        if base:
            refuse_masked(cfg)
    except (OmegaConfBaseException, YAMLError) as error:
        raise UserError(f"Cannot read the configuration: {' '.join(str(error).split())}.") from error
    OmegaConf.set_struct(cfg, True)
    return cfg


def shorten(cfg: DictConfig) -> None:
    """Set what `fast_dev_run`, `overfit_batches` and `precision=auto` stand for, so that a saved run shows it."""
    trainer = cfg.trainer
    if trainer.precision == "auto":
        from src.kit.hardware import auto_precision  # here: it looks for GPUs

        trainer.precision = auto_precision(str(cfg.framework), str(trainer.accelerator))
    if batches := trainer.overfit_batches:
        trainer.limit_train_batches = trainer.limit_val_batches = batches
        off = {
            **dict.fromkeys(("mixup_alpha", "cutmix_alpha", "mosaic", "mixup", "copy_paste"), 0.0),
            **dict.fromkeys(("augment", "sampler", "cache", "rectangular"), "none"),
            **{"shift": None, "border": "black", "sizes": None},
        }
        cfg.data.update({key: value for key, value in off.items() if key in cfg.data})
    if batches := int(trainer.fast_dev_run):
        trainer.max_epochs, trainer.early_stopping.patience, trainer.folds = min(trainer.max_epochs, 1), None, None
        trainer.limit_train_batches = trainer.limit_val_batches = trainer.limit_test_batches = batches
        cfg.tracker = {"name": "none"}


def group_names() -> set[str]:
    """The folders of `src/configs`: groups of options, one of which is chosen."""
    return {path.name for path in CONFIGS.iterdir() if path.is_dir() and path.name != "search"} | set(PRESETS)


def split(argument: str, groups: set[str]) -> tuple[str, str]:
    """`"a.b=1"` -> `("a.b", "1")`; other tools' names of a group or of its options become this project's."""
    key, _, text = argument.partition("=")
    plain = key.lstrip("+")  # Hydra's + and ++ add a key or set it; here every key exists
    if key.startswith("~"):
        key = understand(key[1:], "null")[0]
        raise UserError(f"{argument!r}: a key cannot be deleted; set {key}=VALUE, or null where --help allows it.")
    if "=" not in argument or not plain or plain.startswith("-"):
        refuse_bare(argument, groups)
        refuse_foreign(argument)
    if plain in groups and text in option_names(plain):
        return plain, text
    meant = understand(plain, text)
    return meant if meant[0] in groups or plain in groups else (plain, text)


def refuse_bare(word: str, groups: set[str]) -> None:
    """Refuse an option or a folder of data without its key, such as `resnet18` or `photos`."""
    if found := [f"{group}={word}" for group in sorted(groups) if word in option_names(group)]:
        raise UserError(f"Cannot read {word!r}: write {' or '.join(found)}.")
    with suppress(OSError):  # a name that is too long
        if word and Path(word).is_dir() and not Path(word, "config.yaml").exists():  # which a run has
            raise UserError(f"Cannot read {word!r}: {path_as_data(word, option_names('data'))}")


def override(cfg: DictConfig, key: str, text: str, groups: set[str]) -> None:
    """Set a key that exists already, or one below a key whose own keys are free (`trainer.extra`)."""
    free = any(key.startswith(f"{name}.") for name in OPEN)
    old = OmegaConf.select(cfg, key, default=None if free else ...)  # a key whose value is null exists
    meant, text = understand(key, text)
    if old is ... and meant != key and OmegaConf.select(cfg, meant, default=...) is not ...:
        return override(cfg, meant, text, groups)
    if old is ...:
        raise UserError(unknown_key(key, leaves(cfg), groups, owners(key, cfg)))
    value = parse(key, text, (reference() | component_rules(cfg)).get(key, {}))
    if isinstance(old, DictConfig) and key not in OPEN and not isinstance(value, dict):
        raise UserError(f"{key} is a group of keys: set one of {', '.join(leaves(old, key))}.")
    if isinstance(value, dict) and isinstance(old, DictConfig) and key not in OPEN:
        for name in leaves(value, key):
            if OmegaConf.select(cfg, name, default=...) is ...:
                raise UserError(unknown_key(name, leaves(cfg), groups, owners(name, cfg)))
    OmegaConf.update(cfg, key, value, force_add=free, merge=key not in OPEN)


def compose(chosen: dict[str, str], framework: str | None = None) -> DictConfig:
    """Merge the groups' files (`chosen` over the presets' over config.yaml's defaults) and the presets' own keys."""
    files = [CONFIGS / "config.yaml", *(option_file(group, chosen[group]) for group in PRESETS if group in chosen)]
    parts = [read(path) for path in files]
    options: dict[str, str] = {}
    for part, path in zip(parts, files, strict=True):
        options.update(read_defaults(part.pop("defaults", []), path))
    options.update({group: name for group, name in chosen.items() if group not in PRESETS})
    framework = framework or next(str(part.framework) for part in reversed(parts) if "framework" in part)
    values: dict[str, Any] = {group: option_values(group, name, framework) for group, name in options.items()}
    known = {*leaves(values), *reference(), *options}
    values["framework"] = framework
    rules = reference() | component_rules(values)
    for part, path in zip(parts, files, strict=True):
        refuse_unknown(path, known, values=values)
        keep_texts(part, path, rules)
        for key in options:
            if key in part and not isinstance(part[key], DictConfig):
                raise UserError(f"{shown(path)}: {key} is a group: choose an option of it under defaults:.")
    return OmegaConf.create(overlay(values, *map(contents, parts)))


def read_defaults(entries: Any, path: Path) -> dict[str, str]:
    """`defaults: [{model: resnet18}]` -> `{"model": "resnet18"}`."""
    options: dict[str, str] = {}
    if not OmegaConf.is_list(entries) and not isinstance(entries, list):
        raise UserError(f"{shown(path)}: defaults must be a list of entries `- group: option`, not {entries!r}.")
    for entry in entries:
        if entry == "_self_":
            raise UserError(f"{shown(path)}: leave _self_ out: a file's own keys always win over its defaults.")
        if not isinstance(entry, (dict, DictConfig)) or len(entry) != 1:
            raise UserError(f"{shown(path)}: write each entry of defaults as `- group: option`, not {entry!r}.")
        [(group, name)] = entry.items()
        group = str(group).removeprefix("override ").lstrip("/")
        if group not in group_names() - set(PRESETS):
            raise UserError(f"{shown(path)}: {unknown('group', group, group_names() - set(PRESETS))}")
        options[group] = str(name)
    return options


def refuse_unknown(path: Path, known: set[str], prefix: str = "", values: Mapping[str, Any] | None = None) -> None:
    """Refuse a YAML file's key that nothing knows; keys below a known key that holds others are checked too.

    Raises:
        UserError: names file, line, key and the nearest key.
    """
    holders = {key.rpartition(".")[0] for key in known} | {key.rpartition(".")[0].rpartition(".")[0] for key in known}
    ends = known - holders
    for name, line in key_lines(path.read_text("utf-8")).items():
        key = f"{prefix}.{name}" if prefix else name
        if key not in known | holders and not any(key.startswith(f"{end}.") for end in ends) and name != "defaults":
            elsewhere = owners(key, values) if values else ""
            raise UserError(f"{shown(path)}, line {line}: {unknown_key(key, known, elsewhere=elsewhere)}")


def owners(key: str, values: Mapping[str, Any]) -> str:
    """Which options of its group have a key that the chosen one lacks, in words; "" if none of this task has it."""
    group = key.partition(".")[0]
    if group not in PLACES or group in PRESETS or group not in values:
        return ""
    chosen, having = str(values[group]["name"]), []
    for name in option_names(group):
        with suppress(UserError):  # a file that is not chosen may be unfinished
            found = option_values(group, name, str(values["framework"]))
            fits = values.get("task") in (found.get("tasks") or [values.get("task")])
            if group == "data":  # whose folders are kinds of data
                fits = option_file(group, name).parent == option_file(group, chosen).parent
            having += [name] * (fits and key in leaves(found, group))
    return f"no key of {group}={chosen}, but of {group}={', '.join(having)}" if having else ""


def option(group: str, name: str, framework: str = "") -> DictConfig:
    """An option of a group: its component's defaults, then `default.yaml` of its folders, then its own file."""
    return OmegaConf.create(option_values(group, name, framework))


def option_values(group: str, name: str, framework: str) -> dict[str, Any]:
    """What `option` holds, as plain mappings: OmegaConf copies every node of what it merges."""
    path = option_file(group, name)
    own = read(path)
    if "defaults" in own and group not in PRESETS:
        raise UserError(
            f"{shown(path)}: only config.yaml, a task and an experiment choose options: leave defaults: out."
        )
    shared = read_base(group, path)
    general: dict[str, Any] = {"name": path.stem, **GENERAL.get(group, {})} if group in PLACES else {}
    part = overlay(general, shared, contents(own))
    component = component_file(group, part, framework) if group in PLACES else None
    arguments = signature(component) if component else {}
    rules = {f"{group}.{name}": rule_of(row) for name, row in arguments.items()}
    keep_texts(own, path, reference() | rules, group)
    if group not in PRESETS and (component or group not in PLACES):
        known = {f"{group}.{name}" for name in (*general, "name", "file", "tasks", *arguments)}
        refuse_unknown(path, {*known, *reference()}, group)
    defaults = {name: plain(row.default) for name, row in arguments.items() if row.default is not ...}
    return overlay(defaults, general, shared, contents(own))


def read_base(group: str, *options: Path) -> dict[str, Any]:
    """What `default.yaml` says in the folder of a group, and in those below it that hold options, which are files."""
    folders = dict.fromkeys([CONFIGS / group, *(path.parent for path in options)])
    bases = [read(folder / "default.yaml") for folder in folders if (folder / "default.yaml").exists()]
    return overlay(*map(contents, bases))


def plain(value: Any) -> Any:
    """A default as YAML knows it: tuples become lists."""
    return list(value) if isinstance(value, tuple) else value


def option_file(group: str, name: str) -> Path:
    """`<group>/**/<name>.yaml`; folders only sort the options by task.

    Raises:
        UserError: there is no such option; the message lists those that exist.
    """
    names = option_names(group)
    if name not in names:  # other tools write names of classes and of files
        meant = name.lower().removesuffix(".yaml").removesuffix(".yml").removesuffix(".pt")
        if meant not in names:
            raise UserError(unknown_option(group, name, names, CONFIGS / group))
        name = meant
    return next((CONFIGS / group).rglob(f"{name}.yaml"))


def option_names(group: str) -> list[str]:
    """What can be chosen; a data set's defaults are not a data set, but a trainer's are a trainer."""
    names = sorted(path.stem for path in (CONFIGS / group).rglob("*.yaml"))
    return [name for name in names if name not in DATA_TABLES and (name != "default" or group == "trainer")]


def load_saved(path: Path, chosen: dict[str, str], framework: str | None) -> DictConfig:
    """Read a run's merged configuration, with other options for the chosen groups."""
    if not path.is_file():
        refuse_url(path.parent)
        raise UserError(
            f"{path} does not exist: name a run's folder, such as outputs/small_cnn-digits-20260101-120000."
        )
    saved = read(path)
    refuse_damaged(saved, path)
    # a run of an earlier version lacks the keys that have been added since
    groups = sorted(group_names() & saved.keys() - set(PRESETS))
    files = {group: (CONFIGS / group).rglob(f"{saved[group].get('name')}.yaml") for group in groups}
    added = {group: read_base(group, *found) for group, found in files.items()}
    cfg = OmegaConf.merge(added, saved)
    assert isinstance(cfg, DictConfig)
    for group in (PLACES.keys() & cfg.keys()) - set(PRESETS):  # or those of its components
        component = component_file(group, cfg[group], framework or str(cfg.framework))
        for name, argument in signature(component).items() if component else ():
            if name not in cfg[group] and argument.default is not ...:
                cfg[group][name] = plain(argument.default)
    for group, name in chosen.items():
        if group in PRESETS:
            raise UserError(f"A run keeps its {group}: leave {group}={name} out, or start a new run without --from.")
        cfg[group] = option(group, name, framework or str(cfg.framework))
    return cfg


def refuse_damaged(saved: DictConfig, path: Path) -> None:
    """Refuse a saved configuration that lacks a group, a group's name or a general key, as a file cut short does.

    Raises:
        UserError: names what is missing.
    """
    groups = sorted(group_names() - set(PRESETS))
    lost = [name for name in groups if not isinstance(saved.get(name), DictConfig)]
    lost += [f"{name}.name" for name in groups if name in PLACES and name not in lost and not saved[name].get("name")]
    general = {key: rule for key, rule in reference().items() if "." not in key}
    lost += [key for key, rule in general.items() if not allowed(saved.get(key), rule)]
    if lost:
        raise UserError(f"{shown(path)} is damaged ({lost[0]} is missing or wrong): restore it, or start a new run.")


def help_text(argv: Sequence[str] = ()) -> str:
    """Every group, and every key of the options that `argv` chooses, without importing a framework."""
    lines = ["Groups (group=option):"]
    for group in sorted(group_names()):
        lines.append(f"  {group:<12} {', '.join(option_names(group))}")
    cfg = load_config([word for word in argv if "=" in word])
    lines += ["", "Keys (key=value), with their values here; choose options to see theirs (model=resnet18 --help):"]
    rules = reference() | component_rules(cfg)
    for key, value in leaves(cfg).items():
        rule = rules.get(key, {})
        default = (
            yaml.dump(value, Dumper=DUMPER, default_flow_style=True, width=1000)
            .removesuffix("\n")
            .removesuffix("\n...")
        )
        note = f"{rule.get('help', '')} ({describe(rule)})".strip() if rule else ""
        lines.append(f"  {key + '=' + default:<44} {note}".rstrip())
    return "\n".join(lines) + "\n"

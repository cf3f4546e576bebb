"""The reference of every key, from the kit's keys.yaml and the signatures of the components."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
GROUPS = ("model", "data", "loss", "metric", "optimizer", "scheduler", "tracker", "callback")


def cell(value: object) -> str:
    """A text in a cell of a table."""
    return str(value).replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def reference(words: Mapping[str, str]) -> str:
    """Every key of the kit and of the components, with its type, range, default and meaning."""
    sys.path.insert(0, str(ROOT / "template"))
    from src.kit.config import keys  # type: ignore[import-not-found]
    from src.kit.config.compose import CONFIGS, load_config, option_names  # type: ignore[import-not-found]

    defaults = keys.leaves(load_config(["task=tabular", "data=table_file"])) | keys.leaves(load_config([]))
    defaults = {
        key: value for key, value in defaults.items() if not key.endswith((".name", ".file", ".title", ".tasks"))
    }
    lines = [
        f"# {words['reference']}",
        "",
        words["generated"],
        "",
        f"## {words['options']}",
        "",
        words["names"],
        "|---|---|",
    ]
    groups = sorted(path.name for path in CONFIGS.iterdir() if path.is_dir())
    lines += [f"| `{group}` | {', '.join(f'`{name}`' for name in option_names(group))} |" for group in groups]
    lines += ["", f"## {words['kit']}", "", words["columns"], "|---|---|---|---|"]
    for key, rule in sorted(keys.reference().items()):
        default = f"`{cell(shown(defaults[key]))}`" if key in defaults else ""
        lines.append(f"| `{key}` | {cell(keys.describe(rule))} | {default} | {cell(rule['help'])} |")
    for group in GROUPS:
        lines += components(group, words)
    return "\n".join(lines) + "\n"


def components(group: str, words: Mapping[str, str]) -> list[str]:
    """A heading for the group and one table for each of its files that has keys of its own."""
    from src.kit.config import keys
    from src.kit.config.components import FRAMEWORKS, component_files, signature

    found: dict[str, tuple[list[str], dict[str, Any]]] = {}
    for framework in FRAMEWORKS:
        for name, path in component_files(group, framework).items():
            frameworks, arguments = found.setdefault(name, ([], {}))
            frameworks.append(framework)
            arguments |= signature(path)
    given = ("classes", "channels", "image_size", "total_steps", "steps_per_epoch", *keys.GENERAL_KEYS)
    tables = []
    for name, (frameworks, arguments) in sorted(found.items()):
        own = [argument for argument in arguments.values() if argument.name not in given and argument.help]
        if own:
            tables += ["", f"### {group}: {name}", "", f"{words['frameworks']}: {', '.join(frameworks)}", ""]
            tables += [words["columns"], "|---|---|---|---|"]
        for argument in own:
            default = words["required"] if argument.default is ... else f"`{cell(shown(argument.default))}`"
            rule = cell(keys.describe(keys.rule_of(argument)))
            tables.append(f"| `{group}.{argument.name}` | {rule} | {default} | {cell(argument.help)} |")
    return ["", f"## {group}", *tables] if tables else []


def shown(value: object) -> str:
    """A default as one writes it on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(list(value)) if isinstance(value, tuple) else str(value)

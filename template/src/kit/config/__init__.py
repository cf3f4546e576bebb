"""The configuration: composed from `src/configs` and the command line, checked before any framework loads."""

from src.kit.config.aliases import LOADER, unknown_key
from src.kit.config.components import Range, buildable, find_component, load_component, returned, signature, unknown
from src.kit.config.compose import DATA_TABLES, help_text, load_config, option, option_names
from src.kit.config.keys import GENERAL_KEYS, build_component, leaves
from src.kit.config.values import masked_keys, passwords, refuse_extra, shown_config, title_of, write_config
from src.kit.errors import UserError, hide_passwords, name_layer, refuse_url, run_main

__all__ = [
    "DATA_TABLES",
    "GENERAL_KEYS",
    "LOADER",
    "Range",
    "UserError",
    "build_component",
    "buildable",
    "find_component",
    "help_text",
    "hide_passwords",
    "leaves",
    "load_component",
    "load_config",
    "masked_keys",
    "name_layer",
    "option",
    "option_names",
    "passwords",
    "refuse_extra",
    "refuse_url",
    "returned",
    "run_main",
    "shown_config",
    "signature",
    "title_of",
    "unknown",
    "unknown_key",
    "write_config",
]

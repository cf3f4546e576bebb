"""Look a name up in a literal dict of "module:attribute" strings, importing only what was asked for."""

import importlib
from collections.abc import Mapping
from typing import Any

from src.kit.config.components import unknown
from src.kit.config.errors import UserError


def resolve(registry: Mapping[str, str], name: str, kind: str) -> Any:
    """Return the object that `registry[name]` points to.

    Args:
        registry: name -> "package.module:attribute" (or "package.module" for the module itself).
        kind: what the registry holds, for the message: "model", "data set".

    Raises:
        UserError: there is no such name; the message lists the names there are, the nearest first.
    """
    if name not in registry:
        raise UserError(unknown(kind, name, registry))
    module, _, attribute = registry[name].partition(":")
    loaded = importlib.import_module(module)
    return getattr(loaded, attribute) if attribute else loaded

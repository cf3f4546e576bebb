"""The two backends behind one interface: `load(framework)` gives a module with `fit` and `predict`."""

import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from src.kit.config import UserError, resolve

# what the frameworks say about themselves, which no user can act on; here, since every rank imports this first
for message in (
    "No ccache found",
    ".*treespec.*LeafSpec.*",
    ".*always track global mean and variance.*",
    ".*CPUONLY mode.*",
):
    warnings.filterwarnings("ignore", message)

TRAINERS = {
    "lightning": "src.trainers.lightning",
    "paddle": "src.trainers.paddle",
}
BENCHMARKS = {
    "lightning": "src.kit.lightning.benchmark",
    "paddle": "src.kit.paddle.benchmark",
}


def load(framework: str) -> ModuleType:
    """Import the one backend that was asked for; raises what `load_part` does."""
    backend: ModuleType = load_part(TRAINERS, framework)
    return backend


def load_benchmark(framework: str) -> Any:
    """Import the backend's bare training step and what is measured of it; raises what `load_part` does."""
    return load_part(BENCHMARKS, framework)


def load_part(parts: Mapping[str, str], framework: str) -> Any:
    """The framework's entry of `parts`, which are as `src/kit/config/registry.py` says.

    Raises:
        UserError: an unknown framework, or one that this project was generated without or that is not installed.
    """
    if framework in parts and not find_spec(parts[framework].partition(":")[0]):
        raise UserError(
            f"This project was generated without {framework}: add it with `copier update --data framework=both`."
        )
    try:
        return resolve(parts, framework, "framework")
    except ModuleNotFoundError as error:
        if str(error.name).startswith("src"):
            raise
        raise UserError(f"{error.name} is not installed: run `pip install -r requirements-cpu.txt`.") from error

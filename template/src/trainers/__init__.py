"""The two backends behind one interface: `load(framework)` gives a module with `fit` and `predict`."""

import warnings
from importlib.util import find_spec
from types import ModuleType

from src.utils.errors import UserError
from src.utils.registry import resolve

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


def load(framework: str) -> ModuleType:
    """Import the one backend that was asked for.

    Raises:
        UserError: an unknown framework, or one that this project was generated without or that is not installed.
    """
    if framework in TRAINERS and not find_spec(TRAINERS[framework]):
        raise UserError(
            f"This project was generated without {framework}: add it with `copier update --data framework=both`."
        )
    try:
        return resolve(TRAINERS, framework, "framework")
    except ModuleNotFoundError as error:
        if str(error.name).startswith("src"):
            raise
        raise UserError(f"{error.name} is not installed: run `pip install -r requirements-cpu.txt`.") from error

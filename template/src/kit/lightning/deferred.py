"""Import Lightning without all of torchmetrics, of which it takes two classes: a quarter less CPU time at each start."""

import logging
import sys
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any

CLASSES = {"Metric": "torchmetrics.metric", "MetricCollection": "torchmetrics.collections"}


class Deferred(ModuleType):
    """The package torchmetrics, whose `__init__` runs when more than these classes is asked for.

    It imports the metrics of every field, and with them torchvision and SciPy.
    """

    def __getattr__(self, name: str) -> Any:
        if name in CLASSES:
            import_module("torchmetrics.utilities")  # first, as there: the two import each other
            value = getattr(import_module(CLASSES[name]), name)
            setattr(self, name, value)
            return value
        if (name.startswith("__") and name != "__all__") or not self.__spec__ or not self.__spec__.loader:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        self.__class__ = ModuleType
        self.__spec__.loader.exec_module(self)
        return getattr(self, name)


def defer_torchmetrics() -> None:
    """Put `Deferred` in the place of the package, unless it has been imported already."""
    spec = None if "torchmetrics" in sys.modules else find_spec("torchmetrics")
    if spec is None:
        return
    package = module_from_spec(spec)
    package.__class__ = Deferred
    sys.modules["torchmetrics"] = package
    about = vars(import_module("torchmetrics.__about__"))
    package.__dict__.update({"_logger": logging.getLogger("torchmetrics"), "__version__": about["__version__"]})


defer_torchmetrics()

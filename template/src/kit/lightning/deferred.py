"""Import Lightning without what few runs need: half the CPU time of a start goes into torch.compile and torchmetrics.

Each package is loaded whole, as its authors mean it, when anything else of it is asked for.
"""

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial, wraps
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any, cast

import torch

TESTED = ("2.11.", "2.12.", "2.13.")  # torch's releases with the private names below; others are imported as they are


class Deferred(ModuleType):
    """A package whose `__init__` runs when more than its `early` names is asked for."""

    early: Mapping[str, Any]
    afterwards: list[Callable[[], None]]

    def __getattr__(self, name: str) -> Any:
        if name in self.early:
            value = self.early[name]
            return value() if isinstance(value, Later) else value
        if name.startswith("__") and name != "__all__":
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        self.load()
        return getattr(self, name)

    def load(self) -> None:
        """Run the package's `__init__`; it is an ordinary module from then on."""
        self.__class__ = ModuleType  # type: ignore[assignment]
        if self.__spec__ and self.__spec__.loader:
            self.__spec__.loader.exec_module(self)
        for finish in self.afterwards:
            finish()


class Later:
    """A name in a module inside the package, which is imported when the name is asked for."""

    def __init__(self, module: str, name: str, first: str) -> None:
        self.module, self.name, self.first = module, name, first

    def __call__(self) -> Any:
        import_module(self.first)
        return getattr(import_module(self.module), self.name)


class PackageFirst(MetaPathFinder):
    """Loads the deferred compiler before a module inside it: these import each other in the package's order only."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        package = sys.modules.get(name.rpartition(".")[0])
        if not name.startswith("torch._dynamo.") or not isinstance(package, Deferred):
            return None
        package.load()
        module = sys.modules.pop(name, None)  # put back at once: the import system would load it again
        return ModuleSpec(name, Loaded(module)) if module else None


class Loaded(Loader):
    """Gives a module that exists."""

    def __init__(self, module: ModuleType) -> None:
        self.module, self.spec = module, vars(module).get("__spec__")

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self.module

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__spec__"] = self.spec


class AnyCompiled(type):
    """The type of a stand-in for torch.compile's `OptimizedModule`: nothing is one before torch.compile is loaded."""

    def __instancecheck__(cls, instance: Any) -> bool:
        loaded = sys.modules.get("torch._dynamo.eval_frame")
        return loaded is not None and isinstance(instance, loaded.OptimizedModule)


class OptimizedModule(metaclass=AnyCompiled):
    """What Lightning compares modules with."""


def defer(name: str, early: Mapping[str, Any]) -> Deferred | None:
    """Put `Deferred` in the place of a package and return it; None if it has been imported already."""
    spec = None if name in sys.modules else find_spec(name)
    if spec is None:
        return None
    package: Any = module_from_spec(spec)
    package.__class__ = Deferred
    vars(package).update(early=early, afterwards=[])
    sys.modules[name] = package
    return cast(Deferred, package)


def defer_compiler() -> None:
    """torch.compile: Lightning takes one class of it, and optimizers tell it at each step that they are not for it."""

    package: Deferred

    def disable(function: Any = None, *args: Any, wrapping: bool = True, **kwargs: Any) -> Any:
        if function is None:
            return partial(disable, *args, wrapping=wrapping, **kwargs)
        if not wrapping:  # torch's own functions, such as those of optimizers
            return function
        called = [function]

        @wraps(function)
        def inner(*given: Any, **named: Any) -> Any:
            return called[0](*given, **named)

        package.afterwards.append(lambda: called.insert(0, torch._dynamo.disable(function, *args, **kwargs)))
        return inner

    early = {
        "OptimizedModule": OptimizedModule,
        "disable": disable,
        "graph_break": lambda *args, **kwargs: None,
    }
    if package := cast(Deferred, defer("torch._dynamo", early)):
        torch._dynamo = package
        sys.meta_path.insert(0, PackageFirst())


def defer_torchmetrics() -> None:
    """torchmetrics: Lightning takes two classes; the metrics of every field import torchvision and SciPy."""
    first = "torchmetrics.utilities"  # as in the package: this and the metric import each other
    early = {
        "Metric": Later("torchmetrics.metric", "Metric", first),
        "MetricCollection": Later("torchmetrics.collections", "MetricCollection", first),
    }
    if package := defer("torchmetrics", early):
        about = vars(import_module("torchmetrics.__about__"))
        vars(package).update({"_logger": logging.getLogger("torchmetrics"), "__version__": about["__version__"]})


def defer_imports() -> None:
    """Defer both, before Lightning is imported."""
    if torch.__version__.startswith(TESTED):
        defer_compiler()
        defer_torchmetrics()


defer_imports()

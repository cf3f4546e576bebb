"""The two frameworks behind one interface; only the configured one is ever imported."""

import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from omegaconf import DictConfig

from src.kit.config import UserError, load_component
from src.kit.run import Run
from src.kit.training.experiment import Experiment, named_arguments

# what the frameworks say about themselves, which no user can act on; here, since every rank imports this first
for message in (
    "No ccache found",
    ".*treespec.*LeafSpec.*",
    ".*always track global mean and variance.*",
    ".*CPUONLY mode.*",
):
    warnings.filterwarnings("ignore", message)


class Trainer(Protocol):
    """`src/trainers/<framework>.py`."""

    def fit(self, experiment: Experiment, run: Run, checkpoint: Path | None = None) -> None:
        """Train into the run folder, from a checkpoint folder if one is given."""
        ...


class Backend(Protocol):
    """`src/kit/<framework>`: what evaluation, reports and estimates need of a framework."""

    def load_network(self, experiment: Experiment, checkpoint: Path) -> Any:
        """The experiment's network with a checkpoint folder's weights, in evaluation mode."""
        ...

    def predict(self, experiment: Experiment, network: Any, split: str) -> list[Any]:
        """What the task collects from the predictions for a split, in float32."""
        ...

    def predict_images(self, network: Any, images: Any) -> Any:
        """NumPy outputs for normalised images float32 (B, C, H, W)."""
        ...

    def list_layers(self, network: Any, shape: tuple[int, ...]) -> list[dict[str, Any]]:
        """One row for each leaf layer: name, type, output_shape and parameters, for an input of `shape`."""
        ...


def load_trainer(framework: str) -> Trainer:
    """Import `src/trainers/<framework>.py`; raises what `load_module` does."""
    trainer: Trainer = load_module(f"src.trainers.{framework}", framework)
    return trainer


def load_backend(framework: str) -> Backend:
    """Import `src/kit/<framework>`; raises what `load_module` does."""
    backend: Backend = load_module(f"src.kit.{framework}", framework)
    return backend


def load_benchmark(framework: str) -> Any:
    """Import `src/kit/<framework>/benchmark.py`: a bare training step and what is measured of it."""
    return load_module(f"src.kit.{framework}.benchmark", framework)


def load_memory(framework: str) -> Any:
    """Import `src/kit/<framework>/memory_trace.py`: the allocations of two training steps."""
    return load_module(f"src.kit.{framework}.memory_trace", framework)


def load_module(name: str, framework: str) -> Any:
    """Import a framework's part of the project.

    Raises:
        UserError: this project was generated without the framework, or it is not installed.
    """
    if not find_spec(name):
        raise UserError(
            f"This project was generated without {framework}: add it with `copier update --data framework=both`."
        )
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if str(error.name).startswith("src"):
            raise
        raise UserError(f"{error.name} is not installed: run `pip install -r requirements-cpu.txt`.") from error


def load_callbacks(cfg: DictConfig) -> Sequence[Any]:
    """Your own callbacks: `trainer.callbacks` is a list of names, or maps names to arguments of their `build`.

    Raises:
        UserError: there is no file `src/trainers/callbacks/<framework>/<name>.py`.
    """
    chosen = named_arguments(cfg.trainer.callbacks)
    return [load_component("callback", name, cfg.framework).build(**keys) for name, keys in chosen.items()]

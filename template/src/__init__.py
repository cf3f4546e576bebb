"""Train, evaluate and predict from Python:

    from src import evaluate, load_config, load_run, train

    run = train(load_config(["model=small_cnn", "data=digits"]))
    run.metrics["test"]["accuracy"], run.predict("photo.jpg")

Names are imported when they are first used: scripts that need no framework load none.
"""

from typing import Any

__all__ = ["evaluate", "load_config", "load_run", "train"]


def __getattr__(name: str) -> Any:
    if name == "load_config":
        from src.kit.config import load_config

        return load_config
    if name in __all__:
        from src.kit import training

        return getattr(training, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

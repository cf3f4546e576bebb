"""scripts/train.py while Lightning looks for processes that have ended all the time, and this one takes long to end."""

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "template"))

from lightning_fabric.strategies.launchers.subprocess_script import _ChildProcessObserver

from scripts.train import main
from src.kit.errors import run_main
from src.kit.lightning.trainer import RunCallback

_ChildProcessObserver.__init__.__defaults__ = (0.01,)  # seconds between two looks; Lightning's are 5
end = RunCallback.on_exception


def end_late(callback: RunCallback, *arguments: Any) -> None:
    """As the callback does, and half a second later."""
    end(callback, *arguments)
    time.sleep(0.5)


RunCallback.on_exception = end_late
run_main(main)

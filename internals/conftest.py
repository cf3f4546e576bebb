"""What every test here starts from."""

import logging
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

# the same examples each time: a new one that fails belongs in the test that it fails in, not in somebody else's change
settings.register_profile("same", derandomize=True)
settings.load_profile("same")


@pytest.fixture(autouse=True)
def own_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """The run's log as Python makes it, and heard by `caplog` whatever a run or package did to the root's handlers."""
    log = logging.getLogger("train")
    logging.disable(logging.NOTSET)
    caplog.handler.setLevel(logging.NOTSET)
    caplog.handler.filters.clear()
    log.handlers[:] = [caplog.handler]
    log.disabled, log.propagate = False, False
    log.setLevel(logging.WARNING)
    yield
    log.handlers.clear()


@pytest.fixture(autouse=True)
def children_end_quietly() -> Iterator[None]:
    """Remove the handler that Paddle's loader leaves for ended children.

    It is called on a small stack of its own, without room for the registers (AMX) in which OpenVINO computes bf16: the
    next child's end in the same process was SIGSEGV.
    """
    yield
    if hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)

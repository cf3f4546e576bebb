"""What every test here starts from."""

import logging

import pytest


@pytest.fixture(autouse=True)
def own_log() -> None:
    """The run's log as Python makes it: a run that another test opened in this process may have changed it."""
    log = logging.getLogger("train")
    logging.disable(logging.NOTSET)
    log.disabled, log.propagate = False, True
    log.setLevel(logging.WARNING)

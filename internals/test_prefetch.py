"""Threads that prepare batches ahead: how many, in which order, and that none is left behind."""

import threading
import time

import pytest

from src.kit.hardware.probe import SystemProbe
from src.kit.loading import cache
from src.kit.loading.cache import choose_workers, in_background, prepare_ahead


class Limited(SystemProbe):
    """A machine of 64 cores whose control group allows three and a half."""

    def __init__(self) -> None:
        super().__init__()
        self.system = "Linux"

    def cores(self) -> int:
        return 64

    def read(self, path: str) -> str | None:
        return {"/proc/self/cgroup": "0::/job", "/sys/fs/cgroup/job/cpu.max": "350000 100000\n"}.get(path)


def test_workers_are_the_cores_that_this_process_may_use(monkeypatch):
    monkeypatch.setattr(cache, "SystemProbe", Limited)
    assert choose_workers(in_memory=False) == 4
    assert choose_workers(in_memory=True) == 0


@pytest.mark.parametrize("workers", [1, 3, 9])
def test_results_come_in_order_and_a_bounded_number_ahead(workers):
    started = []

    def prepare(number: int) -> int:
        started.append(number)
        time.sleep(0.001 * (number % 3))
        return number

    results = prepare_ahead(prepare, 20, workers)
    for expected in range(20):
        assert next(results) == expected
        assert len(started) <= expected + workers + 2
    assert list(results) == []
    assert sorted(started) == list(range(20))


def test_in_background_runs_ahead_in_one_other_thread_in_order():
    names = []

    def numbers():
        for number in range(6):
            names.append(threading.current_thread().name)
            yield number

    items = in_background(numbers(), ahead=2)
    assert next(items) == 0
    time.sleep(0.05)
    assert len(names) == 3  # the one that was taken and two more
    assert list(items) == [1, 2, 3, 4, 5]
    assert len(set(names)) == 1
    assert threading.current_thread().name not in names


def test_in_background_passes_errors_on_and_ends_its_thread():
    closed = []

    def numbers(fail: bool):
        try:
            yield 0
            if fail:
                raise OSError("gone")
            yield from range(1, 100)
        finally:
            closed.append(True)

    before = threading.active_count()
    items = in_background(numbers(fail=True))
    assert next(items) == 0
    with pytest.raises(OSError, match="gone"):
        next(items)
    abandoned = in_background(numbers(fail=False))
    assert next(abandoned) == 0
    abandoned.close()
    assert closed == [True, True]
    assert threading.active_count() == before

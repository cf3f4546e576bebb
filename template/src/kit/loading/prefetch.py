"""Prepare batches ahead of training in threads.

Threads and not processes: decoding and array arithmetic release the interpreter's lock, so nothing has to be pickled or
copied, and no worker has to persist over epochs. Starting the threads for each epoch takes 0.1 ms.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from src.kit.hardware import SystemProbe, cores

T = TypeVar("T")


def choose_workers(in_memory: bool) -> int:
    """Threads for `data.num_workers: null`: one per core that this process may use, none for images in memory.

    Respects CPU affinity and cgroup quotas. A batch of images in memory takes less time to prepare than to hand over
    from another thread.
    """
    return 0 if in_memory else cores(SystemProbe())


def prepare_ahead(prepare: Callable[[int], T], batches: int, workers: int) -> Iterator[T]:
    """Yield `prepare(0), prepare(1), ...` in order; `workers` threads work a few batches ahead."""
    pool = ThreadPoolExecutor(workers, "loader")
    try:
        waiting: deque[Future[T]] = deque()
        for number in range(batches + workers + 1):
            if number < batches:
                waiting.append(pool.submit(prepare, number))
            if number > workers:
                yield waiting.popleft().result()
    finally:  # also if the iteration is abandoned
        pool.shutdown(cancel_futures=True)


def in_background(items: Generator[T, None, None], ahead: int = 2) -> Iterator[T]:
    """Yield the generator's items, which another thread produces `ahead` items early (copies to a GPU, for example)."""
    end = object()
    pool = ThreadPoolExecutor(1, "background")
    try:
        waiting = deque(pool.submit(next, items, end) for _ in range(ahead))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(pool.submit(next, items, end))
            yield item  # type: ignore[misc]
    finally:
        pool.shutdown(cancel_futures=True)
        items.close()  # ends the generator's own threads

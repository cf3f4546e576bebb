"""Batches that are prepared ahead of the training, by as many threads as the machine has cores for."""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from src.kit.hardware import SystemProbe, cores

T = TypeVar("T")


def choose_workers(in_memory: bool) -> int:
    """Threads for `data.num_workers: null`: one for each core that this process may use, none for images in memory.

    Affinity and the cgroup's quota count. A batch of images in memory takes less time to make than to hand over from
    another thread. These are threads and not processes, since decoding and array arithmetic let go of the interpreter's
    lock: nothing is pickled or copied between them, and there are no processes that should persist over epochs.
    Starting the threads anew for each epoch takes 0.1 ms.
    """
    return 0 if in_memory else cores(SystemProbe())


def prepare_ahead(prepare: Callable[[int], T], batches: int, workers: int) -> Iterator[T]:
    """Yield `prepare(0), prepare(1), ...` in order, with `workers` threads a few batches ahead."""
    pool = ThreadPoolExecutor(workers, "loader")
    try:
        waiting: deque[Future[T]] = deque()
        for number in range(batches + workers + 1):
            if number < batches:
                waiting.append(pool.submit(prepare, number))
            if number > workers:
                yield waiting.popleft().result()
    finally:  # also where the iteration is abandoned
        pool.shutdown(cancel_futures=True)


def in_background(items: Generator[T, None, None], ahead: int = 2) -> Iterator[T]:
    """Yield what the generator yields, which one other thread runs `ahead` items ahead, such as copies to a GPU."""
    end = object()
    pool = ThreadPoolExecutor(1, "background")
    try:
        waiting = deque(pool.submit(next, items, end) for _ in range(ahead))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(pool.submit(next, items, end))
            yield item  # type: ignore[misc]
    finally:
        pool.shutdown(cancel_futures=True)
        items.close()  # ends threads of its own

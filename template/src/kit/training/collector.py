"""What is kept of a split's predictions, batch by batch. Knows no framework."""

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np


class Collector:
    """Hands the outputs of each batch to the task when the next one comes: by then the device has computed them."""

    def __init__(self, task: ModuleType, to_numpy: Callable[[Any], np.ndarray]) -> None:
        """`to_numpy` fetches a tensor."""
        self.task, self.to_numpy = task, to_numpy
        self.kept: list[Any] = []
        self.loss, self.samples = 0.0, 0  # the sum of the losses of so many samples
        self.pending: tuple[Any, Sequence[Any], Any] | None = None

    def add(self, outputs: Any, arrays: Sequence[Any], loss: Any = None) -> None:
        """Take a batch's outputs, its task's arrays and, where outputs have one, its mean loss: all of them tensors."""
        self.flush()
        self.pending = (outputs, arrays, loss)

    def flush(self) -> None:
        """Keep what is still pending."""
        if self.pending is None:
            return
        outputs, arrays, loss = self.pending
        self.pending = None
        self.kept += self.task.keep(self.to_numpy(outputs), *(self.to_numpy(array) for array in arrays))
        if loss is not None:
            self.loss += len(arrays[0]) * float(self.to_numpy(loss))
            self.samples += len(arrays[0])

    def result(self, gather: Callable[[Any], list[Any]] = lambda mine: [mine]) -> tuple[list[Any], float | None]:
        """What was kept, and the mean loss or None; `gather` returns this rank's object and those of all others."""
        self.flush()
        ranks = gather((self.kept, self.loss, self.samples))
        samples = sum(rank[2] for rank in ranks)
        loss = sum(rank[1] for rank in ranks) / samples if samples else None
        return [item for rank in ranks for item in rank[0]], loss

"""The allocations of training steps, as a list of events that grow with the batch size."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby


@dataclass(frozen=True)
class Trace:
    """What is allocated and freed, in this order.

    `events` holds (block, bytes); a block that comes with -1 is freed. `kinds` says what each block is for: parameters,
    gradients, optimizer, activations, data (on the GPU), workspace, or host, which takes RAM and no GPU memory.
    """

    events: tuple[tuple[int, int], ...]
    kinds: dict[int, str]


class Recorder:
    """Collects the events of a trace."""

    def __init__(self) -> None:
        self.events: list[tuple[int, int]] = []
        self.kinds: dict[int, str] = {}

    def allocate(self, size: int, kind: str = "activations") -> int:
        """Note a birth and return the block's number; a block of no bytes takes no memory."""
        block = len(self.kinds)
        self.kinds[block] = kind
        self.events.append((block, max(0, size)))
        return block

    def free(self, block: int) -> None:
        """Note a death."""
        self.events.append((block, -1))

    def brief(self, size: int, kind: str) -> None:
        """Memory that one operation takes and gives back, such as a workspace."""
        self.free(self.allocate(size, kind))

    def trace(self) -> Trace:
        """What was recorded; deaths that follow each other come in the order of birth, not of chance."""
        events: list[tuple[int, int]] = []
        for dead, group in groupby(self.events, lambda event: event[1] < 0):
            row = list(group)
            events += sorted(row) if dead else row
        return Trace(tuple(events), dict(self.kinds))


class Growth:
    """A trace at any batch size, by the straight line of each block's bytes through two traces.

    Every tensor of a network grows linearly with the batch or not at all, so the line is exact for all of them.
    """

    def __init__(self, batches: Sequence[int], traces: Sequence[Trace]) -> None:
        """`traces` were made with the two `batches`."""
        self.batches, self.traces = batches, traces
        blocks, others = ([block for block, _ in trace.events] for trace in traces)
        # a network that goes through the images one by one does more in a larger batch
        self.same = blocks == others

    def at(self, batch: int) -> Trace:
        """The trace at this batch size, where all batches go through the `same` operations."""
        assert self.same
        low, high = self.batches
        share = (batch - low) / (high - low)
        pairs = zip(self.traces[0].events, self.traces[1].events, strict=True)
        events = tuple(
            (block, size if size < 0 else round(size + (top - size) * share)) for (block, size), (_, top) in pairs
        )
        return Trace(events, self.traces[0].kinds)

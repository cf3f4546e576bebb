"""The events of a trace, run through the model of a framework's allocator."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from src.kit.memory.allocators import Allocator, Block, PaddleAllocator, TorchAllocator
from src.kit.memory.trace import Trace

ALLOCATORS: dict[str, type[Allocator]] = {"lightning": TorchAllocator, "paddle": PaddleAllocator}


@dataclass(frozen=True)
class Peak:
    """Bytes: the most that tensors took (rounded as the allocator does), of which kinds then, and the segments."""

    allocated: int
    reserved: int
    kinds: dict[str, int] = field(default_factory=dict)


def replay(trace: Trace, framework: str) -> Peak:
    """Run the events through the framework's allocator."""
    allocator = ALLOCATORS[framework]()
    held: dict[int, Block] = {}
    now: Counter[str] = Counter()
    allocated, most, kinds = 0, 0, {}
    for number, size in trace.events:
        kind = trace.kinds[number]
        if size > 0 and kind != "host":
            held[number] = block = allocator.allocate(size)
            now[kind] += block.size
            allocated += block.size
            if allocated > most:
                most, kinds = allocated, dict(now)
        elif size < 0 and number in held:
            block = held.pop(number)
            now[kind] -= block.size
            allocated -= block.size
            allocator.release(block)
    return Peak(most, allocator.reserved, kinds)


def line(batches: Sequence[int], peaks: Sequence[Peak], batch: int) -> Peak:
    """The peak on the straight line through those of two batches."""
    share = (batch - batches[0]) / (batches[1] - batches[0])

    def along(low: int, high: int) -> int:
        return round(low + (high - low) * share)

    low, high = peaks
    kinds = {kind: along(low.kinds.get(kind, 0), high.kinds.get(kind, 0)) for kind in {**low.kinds, **high.kinds}}
    allocated = along(low.allocated, high.allocated)
    # segments come in steps of 2 and 20 MiB, whose line may be too flat
    least = round(allocated * max(peak.reserved / peak.allocated for peak in peaks))
    return Peak(allocated, max(least, along(low.reserved, high.reserved)), kinds)

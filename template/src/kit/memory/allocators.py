"""Traces of GPU allocations, and models of the frameworks' allocators that they run through.

PyTorch: c10/core/AllocatorConfig.h of release 2.13 for the sizes; `round_size`, `get_allocation_size` and
`should_split` of c10/cuda/CUDACachingAllocator.cpp for the rules. Paddle: paddle/phi/core/memory/allocation/
auto_growth_best_fit_allocator.cc, with the defaults of FLAGS_auto_growth_chunk_size_in_mb (0) and FLAGS_alignment_size
(256).
PyTorch's has been compared with 22 trainings on a GPU (benchmarks/gpu_memory.py), Paddle's with none.
"""

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

MIB = 1 << 20


@dataclass(frozen=True)
class Trace:
    """Allocations and frees of training steps, in order.

    `events` holds (block, bytes); bytes of -1 free the block. `kinds` maps each block to its purpose: parameters,
    gradients, optimizer, activations, data (on the GPU), workspace, scratch (a workspace that the library may do
    without), handle (cuBLAS's workspace, whose size depends on the GPU), or host, which takes RAM and no GPU memory.
    """

    events: tuple[tuple[int, int], ...]
    kinds: dict[int, str]


def fill_buckets(sizes: Sequence[int]) -> list[list[int]]:
    """Indices of weights of these bytes in the buckets in which both frameworks send their gradients.

    A weight is added until a bucket has 25 MiB, the first one 1 MiB: PyTorch's and Paddle's defaults.
    """
    buckets: list[list[int]] = [[]]
    held = 0
    for index, size in enumerate(sizes):
        buckets[-1].append(index)
        held += size
        if held >= (MIB if len(buckets) == 1 else 25 * MIB):
            buckets.append([])
            held = 0
    return [bucket for bucket in buckets if bucket]


class Recorder:
    """Collects the events of a trace."""

    def __init__(self) -> None:
        self.events: list[tuple[int, int]] = []
        self.kinds: dict[int, str] = {}

    def allocate(self, size: int, kind: str = "activations") -> int:
        """Record an allocation of `size` bytes and return the block's number; an empty block takes no memory."""
        block = len(self.kinds)
        self.kinds[block] = kind
        self.events.append((block, max(0, size)))
        return block

    def free(self, block: int) -> None:
        """Record that a block was freed."""
        self.events.append((block, -1))

    def allocate_briefly(self, size: int, kind: str) -> None:
        """Record memory that one operation takes and gives back, such as a workspace."""
        self.free(self.allocate(size, kind))

    def trace(self) -> Trace:
        """The events so far. Consecutive frees are sorted by block, since Python frees in no fixed order."""
        events: list[tuple[int, int]] = []
        for freed, group in groupby(self.events, lambda event: event[1] < 0):
            row = list(group)
            events += sorted(row) if freed else row
        return Trace(tuple(events), dict(self.kinds))


class SentBuckets:
    """Records the copies in which Paddle sends gradients, a bucket each, the last weights first.

    A bucket is made when its gradients are there, before that of the backward pass before is freed.
    """

    def __init__(self, recorder: Recorder, sizes: Sequence[int]) -> None:
        """`sizes` are the bytes of the trained weights; without any, nothing is recorded."""
        self.recorder, self.sizes = recorder, sizes
        self.buckets = fill_buckets(sizes)[::-1]
        self.blocks: dict[int, int] = {}  # bucket -> its block
        self.start_pass()

    def start_pass(self) -> None:
        """Expect the gradients of a backward pass."""
        self.missing, self.turn = [set(bucket) for bucket in self.buckets], 0

    def take(self, weight: int) -> None:
        """Send what can be sent when the gradient of this weight has come; buckets are sent in their order."""
        for bucket in self.missing:
            bucket.discard(weight)
        while self.turn < len(self.buckets) and not self.missing[self.turn]:
            block = self.recorder.allocate(sum(self.sizes[index] for index in self.buckets[self.turn]), "gradients")
            if self.turn in self.blocks:
                self.recorder.free(self.blocks[self.turn])
            self.blocks[self.turn] = block
            self.turn += 1
        if self.turn == len(self.buckets):
            self.start_pass()


class ScaledTrace:
    """A trace at any batch size, from two traces: each block's bytes lie on a straight line.

    Every tensor of a network grows linearly with the batch or not at all, so the line is exact for all of them.
    """

    def __init__(self, batches: Sequence[int], traces: Sequence[Trace]) -> None:
        """`traces` were made with the two `batches`."""
        self.batches, self.traces = batches, traces
        first, second = ([block for block, _ in trace.events] for trace in traces)
        # False for a network that loops over the images: a larger batch has more operations
        self.same_operations = first == second

    def at(self, batch: int) -> Trace:
        """The trace at this batch size; needs `same_operations`."""
        assert self.same_operations
        low, high = self.batches
        share = (batch - low) / (high - low)
        pairs = zip(self.traces[0].events, self.traces[1].events, strict=True)
        events = tuple(
            (block, size if size < 0 else round(size + (top - size) * share)) for (block, size), (_, top) in pairs
        )
        return Trace(events, self.traces[0].kinds)


@dataclass
class Block:
    """A piece of a segment, linked to its neighbours; `offset` is its address in bytes."""

    size: int
    pool: int
    before: "Block | None" = None
    after: "Block | None" = None
    used: bool = False
    offset: int = 0


class Allocator:
    """Best fit with splitting and merging; the subclasses define a framework's sizes."""

    from_end = False  # whether a request is cut from the end of a free block

    def __init__(self) -> None:
        self.free: dict[int, list[tuple[int, int]]] = {0: [], 1: []}  # pool -> sorted (size, offset)
        self.blocks: dict[int, Block] = {}  # offset -> free block
        self.reserved = 0

    def round(self, size: int) -> int:
        """Bytes that a request of `size` bytes takes."""
        raise NotImplementedError

    def pool(self, size: int) -> int:
        """The pool, 0 or 1, that serves a rounded request."""
        raise NotImplementedError

    def segment(self, size: int) -> int:
        """Bytes of the segment that a rounded request takes from the driver."""
        raise NotImplementedError

    def splits(self, pool: int, rest: int) -> bool:
        """Whether a block is split when `rest` bytes of it remain."""
        raise NotImplementedError

    def allocate(self, size: int) -> Block:
        """Take the smallest free block that is large enough, or a new segment."""
        size = self.round(size)
        pool = self.pool(size)
        free = self.free[pool]
        index = bisect_left(free, (size, 0))
        if index < len(free):
            block = self.blocks.pop(free.pop(index)[1])
        else:
            block = Block(self.segment(size), pool, offset=self.reserved)
            self.reserved += block.size
        rest = block.size - size
        if rest and self.splits(pool, rest):
            first = rest if self.from_end else size
            last = Block(block.size - first, pool, block, block.after, offset=block.offset + first)
            if block.after:
                block.after.before = last
            block.after, block.size = last, first
            block, remaining = (last, block) if self.from_end else (block, last)
            self.add_free(remaining)
        block.used = True
        return block

    def release(self, block: Block) -> None:
        """Free a block and merge it with free neighbours."""
        block.used = False
        if (before := block.before) and not before.used:
            self.remove_free(before)
            before.size, before.after = before.size + block.size, block.after
            if block.after:
                block.after.before = before
            block = before
        if (after := block.after) and not after.used:
            self.remove_free(after)
            block.size, block.after = block.size + after.size, after.after
            if after.after:
                after.after.before = block
        self.add_free(block)

    def add_free(self, block: Block) -> None:
        insort(self.free[block.pool], (block.size, block.offset))
        self.blocks[block.offset] = block

    def remove_free(self, block: Block) -> None:
        free = self.free[block.pool]
        del free[bisect_left(free, (block.size, block.offset))]
        del self.blocks[block.offset]


class TorchAllocator(Allocator):
    """PyTorch's caching allocator: small requests share segments of 2 MiB, large ones of 20 MiB or more."""

    def round(self, size: int) -> int:
        return -(-size // 512) * 512

    def pool(self, size: int) -> int:
        return 0 if size <= MIB else 1

    def segment(self, size: int) -> int:
        return 2 * MIB if size <= MIB else 20 * MIB if size < 10 * MIB else -(-size // (2 * MIB)) * 2 * MIB

    def splits(self, pool: int, rest: int) -> bool:
        return rest >= 512 if pool == 0 else rest > MIB


class PaddleAllocator(Allocator):
    """Paddle's auto-growth allocator: a request that fits no free block gets a segment of its own size."""

    from_end = True

    def round(self, size: int) -> int:
        return -(-size // 256) * 256

    def pool(self, size: int) -> int:
        return 0

    def segment(self, size: int) -> int:
        return size

    def splits(self, pool: int, rest: int) -> bool:
        return True


ALLOCATORS: dict[str, type[Allocator]] = {"lightning": TorchAllocator, "paddle": PaddleAllocator}


@dataclass(frozen=True)
class Peak:
    """Bytes at the moment when tensors take the most.

    `allocated` counts the tensors, rounded as the allocator does; `reserved` all segments of the whole trace; `kinds`
    splits `allocated` by purpose, scratch as workspace.
    """

    allocated: int
    reserved: int
    kinds: dict[str, int] = field(default_factory=dict)


def simulate_allocator(trace: Trace, framework: str) -> Peak:
    """The peak of a trace in the framework's allocator: the higher of those with and without scratch.

    Less scratch can reserve more: a freed block that nothing else has cut fits later requests.
    """
    choices = [("host",), ("host", "scratch")] if "scratch" in trace.kinds.values() else [("host",)]
    peaks = [replay(trace, framework, left_out) for left_out in choices]
    most = max(peaks, key=lambda peak: peak.allocated)
    return Peak(most.allocated, max(peak.reserved for peak in peaks), most.kinds)


def replay(trace: Trace, framework: str, left_out: Sequence[str]) -> Peak:
    """Run the events of a trace, but for blocks of the kinds `left_out`, through the framework's allocator."""
    allocator = ALLOCATORS[framework]()
    held: dict[int, Block] = {}
    now: Counter[str] = Counter()
    allocated, most, kinds = 0, 0, {}
    for number, size in trace.events:
        kind = trace.kinds[number]
        if size > 0 and kind not in left_out:
            held[number] = block = allocator.allocate(size)
            now["workspace" if kind == "scratch" else kind] += block.size
            allocated += block.size
            if allocated > most:
                most, kinds = allocated, dict(now)
        elif size < 0 and number in held:
            block = held.pop(number)
            now["workspace" if kind == "scratch" else kind] -= block.size
            allocated -= block.size
            allocator.release(block)
    return Peak(most, allocator.reserved, kinds)


def extrapolate_peak(batches: Sequence[int], peaks: Sequence[Peak], batch: int) -> Peak:
    """The peak at `batch`, on the straight line through the peaks of two batches."""
    share = (batch - batches[0]) / (batches[1] - batches[0])

    def along(low: int, high: int) -> int:
        return round(low + (high - low) * share)

    low, high = peaks
    kinds = {kind: along(low.kinds.get(kind, 0), high.kinds.get(kind, 0)) for kind in {**low.kinds, **high.kinds}}
    allocated = along(low.allocated, high.allocated)
    # segments come in steps of 2 and 20 MiB, whose line may be too flat
    least = round(allocated * max(peak.reserved / peak.allocated for peak in peaks))
    return Peak(allocated, max(least, along(low.reserved, high.reserved)), kinds)

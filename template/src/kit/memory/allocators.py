"""Models of the frameworks' GPU allocators: what a list of events makes them take from the driver.

PyTorch: c10/core/AllocatorConfig.h of release 2.13 for the sizes; `round_size`, `get_allocation_size` and
`should_split` of c10/cuda/CUDACachingAllocator.cpp for the rules. Paddle: paddle/phi/core/memory/allocation/
auto_growth_best_fit_allocator.cc, with the defaults of FLAGS_auto_growth_chunk_size_in_mb (0) and FLAGS_alignment_size
(256).
Neither model has been compared with a real GPU yet: benchmarks/gpu_memory.py does that.
"""

from bisect import bisect_left, insort
from dataclasses import dataclass

MIB = 1 << 20


@dataclass
class Block:
    """A piece of a segment, with its neighbours."""

    size: int
    pool: int
    before: "Block | None" = None
    after: "Block | None" = None
    used: bool = False
    place: int = 0


class Allocator:
    """Best fit with splitting and merging; the subclasses hold a framework's sizes."""

    from_end = False  # whether a request is cut from the end of a free block

    def __init__(self) -> None:
        self.free: dict[int, list[tuple[int, int]]] = {0: [], 1: []}  # pool -> sorted (size, place)
        self.blocks: dict[int, Block] = {}  # place -> free block
        self.reserved = 0

    def round(self, size: int) -> int:
        raise NotImplementedError

    def pool(self, size: int) -> int:
        raise NotImplementedError

    def segment(self, size: int) -> int:
        raise NotImplementedError

    def splits(self, pool: int, rest: int) -> bool:
        raise NotImplementedError

    def allocate(self, size: int) -> Block:
        """Take the smallest free block that is large enough, or a new segment."""
        size = self.round(size)
        pool = self.pool(size)
        free = self.free[pool]
        found = bisect_left(free, (size, 0))
        if found < len(free):
            block = self.blocks.pop(free.pop(found)[1])
        else:
            block = Block(self.segment(size), pool, place=self.reserved)
            self.reserved += block.size
        rest = block.size - size
        if rest and self.splits(pool, rest):
            first = rest if self.from_end else size
            last = Block(block.size - first, pool, block, block.after, place=block.place + first)
            if block.after:
                block.after.before = last
            block.after, block.size = last, first
            block, remaining = (last, block) if self.from_end else (block, last)
            self.put(remaining)
        block.used = True
        return block

    def release(self, block: Block) -> None:
        """Give a block back; it melts with free neighbours."""
        block.used = False
        if (before := block.before) and not before.used:
            self.take(before)
            before.size, before.after = before.size + block.size, block.after
            if block.after:
                block.after.before = before
            block = before
        if (after := block.after) and not after.used:
            self.take(after)
            block.size, block.after = block.size + after.size, after.after
            if after.after:
                after.after.before = block
        self.put(block)

    def put(self, block: Block) -> None:
        insort(self.free[block.pool], (block.size, block.place))
        self.blocks[block.place] = block

    def take(self, block: Block) -> None:
        free = self.free[block.pool]
        del free[bisect_left(free, (block.size, block.place))]
        del self.blocks[block.place]


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
    """Paddle's auto-growth allocator: every request that nothing free fits gets a segment of its own size."""

    from_end = True

    def round(self, size: int) -> int:
        return -(-size // 256) * 256

    def pool(self, size: int) -> int:
        return 0

    def segment(self, size: int) -> int:
        return size

    def splits(self, pool: int, rest: int) -> bool:
        return True

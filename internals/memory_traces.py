"""Reads traces in tests of either framework."""

from src.kit.memory.allocators import Trace


def live(trace: Trace) -> tuple[list[int], list[str]]:
    """Bytes in use after each event, and the kind of its block."""
    held: dict[int, int] = {}
    series, now = [], 0
    for block, size in trace.events:
        now += size if size >= 0 else -held[block]
        held[block] = size
        series.append(now)
    return series, [trace.kinds[block] for block, _ in trace.events]


def living(trace: Trace) -> dict[str, int]:
    """Kind -> bytes of what is not freed at the end."""
    sizes: dict[int, int] = {}
    for block, size in trace.events:
        sizes[block] = max(size, 0)
    kinds = ("parameters", "gradients", "optimizer")
    return {kind: sum(size for block, size in sizes.items() if trace.kinds[block] == kind) for kind in kinds}

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

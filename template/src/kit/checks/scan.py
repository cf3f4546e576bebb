"""Look at many images at once, with a progress bar on a terminal.

Threads do: reading, hashing and decoding run outside Python's lock, which small images hold for about 0.05 ms each and
photos for a thirtieth of their time.
"""

import sys
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from src.kit.checks.images import Facts, inspect
from src.kit.run import REDRAW_S, open_bar

CHUNK = 64  # images a task


def scan(paths: Sequence[str], workers: int) -> list[Facts]:
    """The facts of every file, in this order."""
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    facts: list[Facts] = []
    bar = open_bar(sys.stderr) if sys.stderr.isatty() else None
    started = next_draw = time.perf_counter()
    try:
        with warnings.catch_warnings(), ThreadPoolExecutor(workers) as pool:
            warnings.simplefilter("ignore")  # Pillow's, about metadata
            for part in pool.map(inspect_all, chunks):
                facts += part
                if bar is not None and ((now := time.perf_counter()) >= next_draw or len(facts) == len(paths)):
                    next_draw = now + REDRAW_S
                    speed = f"{len(facts) / (now - started):,.0f} images/s"
                    bar.update(bar.task_ids[0], description="checking", values=speed)
                    bar.update(bar.task_ids[0], completed=len(facts), total=len(paths), refresh=True)
    finally:
        if bar is not None:
            bar.stop()
    return facts


def inspect_all(paths: Sequence[str]) -> list[Facts]:
    """The facts of some files."""
    return [inspect(path) for path in paths]

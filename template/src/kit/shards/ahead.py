"""Fetches the shards that are needed next in the background, so that training never waits for the network."""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from src.kit.config import UserError


class Ahead:
    """Keeps up to `count` shards more than those that have been reached on this machine."""

    def __init__(self, fetch: Callable[[int], None], count: int) -> None:
        self.fetch, self.count = fetch, max(count, 1)
        self.lock = threading.Lock()
        self.running = False
        self.coming: Sequence[int] = ()
        self.places: dict[int, int] = {}
        self.done, self.last = 0, -1  # shards that were fetched; place of the furthest one that was reached

    def expect(self, shards: Sequence[int]) -> None:
        """Begin with the first of these shards, which are in the order in which they will be needed."""
        with self.lock:
            self.coming, self.places = shards, {shard: place for place, shard in enumerate(shards)}
            self.done, self.last = 0, -1
        self.start()

    def reached(self, shard: int) -> None:
        """Take note that a shard is needed now."""
        if self.places.get(shard, -1) > self.last:
            with self.lock:
                self.last = max(self.last, self.places.get(shard, -1))
            self.start()

    def start(self) -> None:
        """Start the thread, if there is something to fetch and it isn't at work already."""
        with self.lock:
            if self.running or self.done >= self.due():
                return
            self.running = True
        # a daemon: leaving the program does not wait for a download, which the next run resumes
        threading.Thread(target=self.run, name="shards", daemon=True).start()

    def due(self) -> int:
        """How many of the expected shards should be there by now."""
        return min(self.last + 1 + self.count, len(self.coming))

    def run(self) -> None:
        """Fetch until enough shards are there."""
        while True:
            with self.lock:
                if self.done >= self.due():
                    self.running = False
                    return
                shard = self.coming[self.done]
                self.done += 1
            with suppress(UserError, OSError):  # whoever needs the shard asks again, and reports it
                self.fetch(shard)

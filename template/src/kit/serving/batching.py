"""Dynamic batches: what gathers while the network computes is its next batch."""

import asyncio
import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from src.kit.inference import Drift, Predictor
from src.kit.storage import checksum, sort_paths

WEIGHTS = (".onnx", ".xml", ".bin")  # of an exported network
PIXELS = 32_000_000  # decoded at once by a consumer: 0.1 GB

Answer = dict[str, Any] | Exception


class Overloaded(Exception):
    """More waits already than may wait."""


class Model:
    """A network in service. `version` changes with its weights."""

    def __init__(self, path: Path, threads: int) -> None:
        """Open a run, an export or an .onnx file, and compute one made-up input.

        Raises:
            UserError: it cannot be opened.
        """
        self.path, self.predictor, self.loaded = path, Predictor.open(path, threads), time.time()
        self.card = self.predictor.card
        self.lock = None if self.predictor.concurrent else threading.Lock()
        self.version = version_of(path, self.card.to_json())
        self.rows = len(self.card.input["shape"]) == 1  # of a table, instead of images
        self.predictor.compute(np.zeros((1, *self.card.input["shape"]), np.float32))
        self.predictor.drift = self.drift = Drift(self.card)

    def predict(self, sources: Sequence[Any], measure: Callable[[Any], int]) -> list[Answer]:
        """One answer for each source: a prediction, or the error that it met. Safe to call from several threads.

        Args:
            measure: refuses a source by raising `UserError`, or returns the pixels that it has.
        """
        answers: list[Answer | None] = [None] * len(sources)
        group: list[tuple[int, Any]] = []
        pixels = 0
        for place, source in enumerate(sources):
            try:
                size = measure(source)
                if group and pixels + size > PIXELS:
                    self.compute(group, answers)
                    group, pixels = [], 0
                group.append((place, self.predictor.read(source)))
                pixels += size
            except Exception as error:  # whatever it is, it is the fault of one
                answers[place] = error
        self.compute(group, answers)
        return [answer for answer in answers if answer is not None]

    def compute(self, group: Sequence[tuple[int, Any]], answers: list[Answer | None]) -> None:
        """Predict what was read, and put each prediction into its place of `answers`."""
        if not group:
            return
        try:
            found: Sequence[Answer] = self.locked([item for _, item in group])
        except Exception as error:
            if len(group) > 1:  # the fault of one, such as a row without a column: it must not fail the others
                for each in group:
                    self.compute([each], answers)
                return
            found = [error]
        for (place, _), answer in zip(group, found, strict=True):
            answers[place] = answer

    def locked(self, items: Sequence[Any]) -> list[dict[str, Any]]:
        """`Predictor.predict_items`, one thread at a time where the network needs it."""
        if self.lock is None:
            return self.predictor.predict_items(items)
        with self.lock:
            return self.predictor.predict_items(items)


def version_of(path: Path, card: str) -> str:
    """12 hexadecimal digits that change with the weights of an export, or with the card of a run."""
    folder = path.parent if path.suffix == ".onnx" else path
    files = sort_paths(file for file in folder.iterdir() if file.suffix in WEIGHTS)
    parts = [card, *(checksum(file) for file in files)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


class Waiting(NamedTuple):
    """A source that waits for its answer."""

    source: Any
    answer: "asyncio.Future[tuple[Model, Answer]]"


class Batcher:
    """As many consumers as cores take what waits, each a batch at a time, and compute it in a thread of their own.

    No timer: while a batch is computed, the next one gathers, so batches grow with the load and a single request never
    waits for others.

    Attributes:
        model: what the next batch is computed with; replace it at any time.
    """

    def __init__(
        self, model: Model, consumers: int, batch: int, queue: int, measure: Callable[[Any], int], observe: Any
    ) -> None:
        """`queue`: sources that may wait; `observe(size)` is told of each batch."""
        self.model, self.batch, self.queue = model, batch, queue
        self.measure, self.observe = measure, observe
        self.waiting: deque[Waiting] = deque()
        self.pool = ThreadPoolExecutor(consumers, thread_name_prefix="consumer")
        self.consumers = consumers
        self.tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start the consumers, in the running event loop."""
        self.arrived = asyncio.Event()
        self.tasks = [asyncio.create_task(self.consume()) for _ in range(self.consumers)]

    async def stop(self) -> None:
        """End the consumers after what waits has been answered."""
        while self.waiting:
            await asyncio.sleep(0.01)
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.pool.shutdown()

    async def submit(self, sources: Sequence[Any]) -> list[tuple[Model, Answer]]:
        """The answers for the sources of one request, each with the model that gave it.

        Raises:
            Overloaded: too many wait already; none of these was queued.
        """
        if len(self.waiting) + len(sources) > self.queue:
            raise Overloaded
        loop = asyncio.get_running_loop()
        added = [Waiting(source, loop.create_future()) for source in sources]
        self.waiting.extend(added)
        self.arrived.set()
        if len(added) == 1:  # as most requests; without the cost of a group
            return [await added[0].answer]
        return list(await asyncio.gather(*(each.answer for each in added)))

    async def consume(self) -> None:
        """Compute batches until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            while not self.waiting:
                self.arrived.clear()
                await self.arrived.wait()
            model, batch = self.model, self.take()
            if not batch:
                continue
            self.observe(len(batch))
            sources = [each.source for each in batch]
            try:
                answers = await loop.run_in_executor(self.pool, model.predict, sources, self.measure)
            except Exception as error:
                for each in batch:
                    if not each.answer.done():
                        each.answer.set_exception(error)
                continue
            for each, answer in zip(batch, answers, strict=True):
                if not each.answer.done():
                    each.answer.set_result((model, answer))

    def take(self) -> list[Waiting]:
        """The next batch, without those whose clients have gone."""
        count = min(self.batch, len(self.waiting))
        taken = [self.waiting.popleft() for _ in range(count)]
        return [each for each in taken if not each.answer.done()]

"""What Prometheus reads at /metrics: requests, latencies, batches, the queue, memory and CPU."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from src.kit.serving.batching import Answer, Batcher, Model

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
RECENT = 2000  # latest predictions whose quantiles are told
QUANTILES = (0.5, 0.95, 0.99)


class Metrics:
    """The service's figures, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        named: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter("requests", "Answered requests", ["path", "status"], **named)
        self.seconds = Histogram("predict_seconds", "Time of a prediction's request", buckets=SECONDS, **named)
        self.batches = Histogram("batch_size", "Samples computed at once", buckets=SIZES, **named)
        self.predictions = Counter("predictions", "Samples predicted", ["model", "version"], **named)
        self.cached = Counter("cached_predictions", "Samples answered from the cache", **named)
        self.answers = Histogram(
            "answer_seconds", "From the queue to the answer", ["model", "version"], buckets=SECONDS, **named
        )
        self.compared = Counter(
            "compared_predictions", "Samples that a second model predicted too", ["result"], **named
        )
        self.reloads = Counter("reloads", "Models that replaced another", **named)
        self.recent: deque[float] = deque(maxlen=RECENT)
        self.gauges: dict[str, tuple[str, Callable[[], float]]] = {}
        self.drift: Mapping[str, tuple[str, Callable[[], dict[Any, float]]]] = {}
        self.labelled = cache(lambda figure, *values: figure.labels(*values))  # which takes a lock and makes a key
        self.registry.register(self)  # type: ignore[arg-type]
        ProcessCollector(registry=self.registry)  # memory and CPU, on Linux

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The values of this moment, when Prometheus asks."""
        for name, (text, value) in self.gauges.items():
            yield GaugeMetricFamily(name, text, value=value())
        for name, (text, values) in self.drift.items():
            family = GaugeMetricFamily(name, text, labels=["model", "version", "feature"])
            for labels, number in values().items():
                family.add_metric(labels, number)
            yield family
        latency = GaugeMetricFamily(
            "predict_latency_seconds", f"Of the last {RECENT} predictions", labels=["statistic"]
        )
        for name, seconds in self.latencies().items():
            latency.add_metric([name], seconds)
        yield latency

    def latencies(self) -> dict[str, float]:
        """Seconds of the latest predictions' requests: mean, p50, p95 and p99."""
        if not self.recent:
            return {}
        seconds = np.array(self.recent)
        quantiles = zip(QUANTILES, np.quantile(seconds, QUANTILES), strict=True)
        return {"mean": float(seconds.mean())} | {f"p{100 * share:.0f}": float(value) for share, value in quantiles}

    def count(self, path: str, status: int, seconds: float) -> None:
        """Count a request, and take note of the time that a prediction took."""
        self.labelled(self.requests, path, status).inc()
        if path == "/predict" and status == 200:
            self.seconds.observe(seconds)
            self.recent.append(seconds)

    async def timed(self, batcher: Batcher, sources: Sequence[Any]) -> list[tuple[Model, Answer]]:
        """`Batcher.submit`, with its time and its samples counted by model."""
        started = time.perf_counter()
        found = await batcher.submit(sources)
        model = found[-1][0]
        names = (model.card.model, model.version)
        self.labelled(self.answers, *names).observe(time.perf_counter() - started)
        predicted = sum(not isinstance(answer, Exception) for _, answer in found)
        self.labelled(self.predictions, *names).inc(predicted)
        return found

    def text(self) -> bytes:
        """All figures in Prometheus' format."""
        return generate_latest(self.registry)


class Counted:
    """Middleware that counts each request by its path and status, and times predictions."""

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: frozenset[str]) -> None:
        """`paths`: those that are counted by their names; all others are "other"."""
        self.app, self.metrics, self.paths = app, metrics, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in self.paths else "other"
        started, status = time.perf_counter(), 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, watched)
        finally:
            self.metrics.count(path, status, time.perf_counter() - started)

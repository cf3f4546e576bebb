"""Drift: whether inputs and predictions still look like those that the network was trained and validated with.

An export's card holds histograms of cheap features (`reference`): of inputs over training samples, of predictions over
validation samples, as a network is surer of what it has learned by heart. New samples are compared with them by the
population stability index, the sum of (p - q) ln(p / q) over the bins (Siddiqi 2006): below 0.1 nothing has changed,
above 0.2 something has. Without any drift it is distributed as (1/n + 1/m) chi-squared (Yurdakul 2018), which is the
limit where samples are few.
"""

import itertools
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from src.kit.inference.batches import Batch, kind_of
from src.kit.inference.card import Card

LEAST = 100  # samples before anything is said
WINDOW = 1000  # latest samples that are compared
DRIFTED = 0.2
BINS, VALUES = 10, 20  # of numbers, of names; the rest is one more
SURE = 3.719  # standard deviations: one false alarm in 10,000
REST = 50  # times as long as a look took, until the next one


class Shift(NamedTuple):
    """How far a feature has moved; `now` and `then` are the shares of its bins."""

    psi: float
    limit: float
    now: np.ndarray
    then: np.ndarray

    @property
    def drifted(self) -> bool:
        """Whether that is more than chance."""
        return bool(self.psi > self.limit)


class Drift:
    """The latest samples, compared with a card's reference. Safe to use from several threads.

    Attributes:
        histograms: of the reference, by feature; empty if the card has none.
    """

    def __init__(self, card: Card, window: int | None = WINDOW) -> None:
        """`window`: samples that are compared; None: all, and no look is left out to save time."""
        self.card, self.hurried, self.lock = card, window is not None, threading.Lock()
        self.histograms: Mapping[str, Any] = card.reference
        self.seen = {name: deque[int](maxlen=window) for name in self.histograms}
        self.rests = {"inputs": 0.0, "predictions": 0.0}

    def look(self, batch: Batch) -> None:
        """Take note of inputs."""
        self.count("inputs", lambda: kind_of(self.card).features(self.card, batch))

    def hear(self, predictions: Sequence[Mapping[str, Any]]) -> None:
        """Take note of predictions."""
        self.count("predictions", lambda: outcomes(predictions))

    def count(self, part: str, features: Callable[[], Mapping[str, Any]]) -> None:
        """Count the values of some features, (B,) each, unless that cost more than 1 / `REST` of the time."""
        started = time.monotonic()
        if not self.histograms or (self.hurried and started < self.rests[part]):
            return
        found = features().items()
        bins = {name: place(self.histograms[name], values) for name, values in found if name in self.seen}
        with self.lock:
            for name, numbers in bins.items():
                self.seen[name].extend(numbers)
        now = time.monotonic()
        self.rests[part] = now + REST * (now - started)

    def shifts(self) -> dict[str, Shift]:
        """Each feature of which enough samples were seen, those that moved most first."""
        with self.lock:
            seen = {name: np.array(numbers) for name, numbers in self.seen.items() if len(numbers) >= LEAST}
        found = {name: compare(self.histograms[name]["counts"], numbers) for name, numbers in seen.items()}
        return dict(sorted(found.items(), key=lambda item: item[1].limit - item[1].psi))

    def samples(self) -> int:
        """The number of samples that are compared."""
        with self.lock:
            return max(map(len, self.seen.values()), default=0)


def compare(counts: Sequence[int], numbers: np.ndarray) -> Shift:
    """Compare the bins' counts of the reference with the bins of new samples, int (N,)."""
    then, now = np.array(counts), np.bincount(numbers, minlength=len(counts))
    shares = [(each + 0.5) / (each.sum() + 0.5 * len(each)) for each in (now, then)]  # none is 0
    psi = float(((shares[0] - shares[1]) * np.log(shares[0] / shares[1])).sum())
    freedom = max(1, int(np.count_nonzero(now + then)) - 1)
    part = 2 / (9 * freedom)
    chance = freedom * (1 - part + SURE * part**0.5) ** 3  # a quantile of chi-squared (Wilson and Hilferty 1931)
    limit = max(DRIFTED, float(1 / now.sum() + 1 / then.sum()) * chance)
    return Shift(psi, limit, now / now.sum(), then / then.sum())


def histogram(values: np.ndarray | Sequence[str]) -> dict[str, Any]:
    """The bins of a feature and how many values (N,) are in each: "edges" of numbers or "values" of names; "counts"."""
    if not isinstance(values, np.ndarray):
        names = [name for name, _ in Counter(values).most_common(VALUES)]
        bins: dict[str, Any] = {"values": names}
        size = len(names) + 1  # others
    else:
        distinct = np.unique(values.astype(np.float64))
        inner = (distinct[1:] + distinct[:-1]) / 2  # between values that are few
        if len(distinct) > BINS:
            inner = np.unique(np.quantile(values, np.arange(1, BINS) / BINS))
        margin = 1e-6 * max(1.0, *np.abs(distinct[[0, -1]]))  # differences of rounding are none
        bins = {"edges": [float(f"{edge:.7g}") for edge in (distinct[0] - margin, *inner, distinct[-1] + margin)]}
        size = len(bins["edges"]) + 1  # with what is smaller or larger than any
    return bins | {"counts": np.bincount(place(bins, values), minlength=size).tolist()}


def place(bins: Mapping[str, Any], values: Any) -> list[int]:
    """The number of each value's bin."""
    if "edges" in bins:
        return np.searchsorted(bins["edges"], values).tolist()  # type: ignore[no-any-return]
    numbers = {name: number for number, name in enumerate(bins["values"])}
    return [numbers.get(name, len(numbers)) for name in values]


def outcomes(predictions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Features of predictions: their class and score, the number of objects, or the predicted number.

    Class and score are those of the best object, or of a class map's largest class.
    """
    first = predictions[0]
    if "value" in first:
        return {"predicted value": np.array([each["value"] for each in predictions])}
    found: dict[str, Any] = {}
    best: Sequence[Mapping[str, Any]] = predictions
    if "objects" in first:
        found["predicted objects"] = np.array([len(each["objects"]) for each in predictions], float)
        best = [next(iter(each["objects"]), {"class": "", "score": 0.0}) for each in predictions]
    elif "classes" in first:
        best = [each["classes"][0] for each in predictions]
    found["predicted class"] = [each["class"] for each in best]
    return found | {"predicted score": np.array([each["score"] for each in best])}


def refer(card: Card, batches: Iterable[Batch], predictions: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The `reference` of a card, from batches of training samples and predictions for validation samples."""
    found: dict[str, list[Any]] = {}
    parts = (kind_of(card).features(card, batch) for batch in batches)
    for part in itertools.chain(parts, (outcomes([each]) for each in predictions)):
        for name, values in part.items():
            found.setdefault(name, []).extend(values)
    texts = {name: isinstance(values[0], str) for name, values in found.items()}
    return {name: histogram(values if texts[name] else np.array(values)) for name, values in found.items()}

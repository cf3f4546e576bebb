"""What is watched beside the answers: drift from the training data, and a second model that predicts the same."""

import asyncio
import html
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from src.kit.inference import Shift, outcomes
from src.kit.serving.batching import Answer, Batcher, Model, Overloaded
from src.kit.serving.metrics import Metrics

HELD = 64 << 20  # bytes that may wait for the second model
CLOSE = 0.01  # relative difference of numbers that count as the same
STYLE = """<style>
:root { color-scheme: light dark; }
body { max-width: 860px; margin: 0 auto; padding: 32px 20px 60px; font: 15px/1.5 system-ui, sans-serif; }
table { border-collapse: collapse; width: 100%; margin: 10px 0 34px; }
td, th { padding: 8px 12px; text-align: right; border-bottom: 1px solid #8885; }
td:first-child, th:first-child { text-align: left; overflow-wrap: anywhere; }
svg { width: 220px; height: 44px; vertical-align: middle; }
.then { fill: #9aa5b4; } .now { fill: #0072b2; } .moved .now { fill: #d55e00; } .moved b { color: #d55e00; }
.soft { opacity: .7; }
</style>"""


class Shadow:
    """A second model that predicts what the first one answers; its answers are only compared."""

    def __init__(self, batcher: Batcher, metrics: Metrics) -> None:
        self.batcher, self.metrics = batcher, metrics
        self.held = 0
        self.tasks: set[asyncio.Task[None]] = set()

    def follow(self, sources: Sequence[Any], answers: Sequence[Answer]) -> None:
        """Predict the sources too, later, and compare; what is too much to wait is left out."""
        size = sum(len(source) if isinstance(source, bytes) else 1000 for source in sources)
        if self.held + size > HELD:
            self.metrics.compared.labels("left out").inc(len(sources))
            return
        self.held += size
        task = asyncio.create_task(self.compare(sources, answers, size))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def compare(self, sources: Sequence[Any], answers: Sequence[Answer], size: int) -> None:
        """Predict, and count the answers that agree."""
        try:
            found = await self.metrics.timed(self.batcher, sources)
            for mine, (_, other) in zip(answers, found, strict=True):
                self.metrics.compared.labels("same" if agree(mine, other) else "different").inc()
        except Overloaded:
            self.metrics.compared.labels("left out").inc(len(sources))
        except Exception:  # the fault of the second model is nobody else's
            self.metrics.compared.labels("failed").inc(len(sources))
        finally:
            self.held -= size


def agree(mine: Answer, other: Answer) -> bool:
    """Whether two answers name the same class and number of objects, or almost the same number, or are both refusals.

    The class is that of the best object, or a class map's largest; numbers may differ by less than 1 %.
    """
    if isinstance(mine, Exception) or isinstance(other, Exception):
        return isinstance(mine, Exception) and isinstance(other, Exception)
    one, two = outcomes([mine]), outcomes([other])
    if "predicted value" in one and "predicted value" in two:
        return math.isclose(one["predicted value"][0], two["predicted value"][0], rel_tol=CLOSE)
    return all(one.get(f"predicted {what}") == two.get(f"predicted {what}") for what in ("class", "objects"))


def drift_page(models: Sequence[Model]) -> str:
    """The page: each model's features, those that moved most first."""
    parts = [drift_table(model) for model in models]
    return f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Drift</title>{STYLE}{"".join(parts)}</html>'


def drift_table(model: Model) -> str:
    """One model's features."""
    drift = model.drift
    title = f"<h1>{html.escape(model.card.model or model.path.name)}</h1><p class=soft>version {model.version}</p>"
    if not drift.histograms:
        return title + "<p>This model does not know its training data: export its run again, where they are.</p>"
    if not (shifts := drift.shifts()):
        return title + f"<p>{drift.samples()} samples were seen; 100 are needed to compare them.</p>"
    rows = [
        f"<tr{' class=moved' if shift.drifted else ''}><td>{html.escape(name)}</td><td>{bars(shift)}</td>"
        f"<td>{shift.psi:.3f}</td><td>{shift.limit:.3f}</td>"
        f"<td>{'<b>moved</b>' if shift.drifted else 'as in training'}</td></tr>"
        for name, shift in shifts.items()
    ]
    head = "<tr><th>feature</th><th>training, now</th><th>PSI</th><th>limit</th><th></th></tr>"
    told = f"<p>The latest {drift.samples():,} samples beside the training data:</p>"
    return f"{title}{told}<table>{head}{''.join(rows)}</table>"


def bars(shift: Shift) -> str:
    """The shares of the bins, then and now, as a picture of 100 x 20 units."""
    step, top = 100 / len(shift.then), max(shift.then.max(), shift.now.max())
    shapes = [
        f'<rect class={name} x="{step * (place + offset):.2f}" y="{20 - 20 * share / top:.2f}" '
        f'width="{0.38 * step:.2f}" height="{20 * share / top:.2f}"/>'
        for name, shares, offset in (("then", shift.then, 0.1), ("now", shift.now, 0.5))
        for place, share in enumerate(shares)
    ]
    return f'<svg viewBox="0 0 100 20" preserveAspectRatio="none" role="img">{"".join(shapes)}</svg>'


def drift_figures(models: Callable[[], Sequence[Model]]) -> Mapping[str, tuple[str, Callable[[], dict[Any, float]]]]:
    """Gauges by model, version and feature."""

    def each(value: Callable[[Shift], float]) -> Callable[[], dict[Any, float]]:
        return lambda: {
            (model.card.model, model.version, name): value(shift)
            for model in models()
            for name, shift in model.drift.shifts().items()
        }

    return {
        "drift_psi": ("Population stability index of the latest samples", each(lambda shift: shift.psi)),
        "drifted": ("1 if a feature has moved more than chance explains", each(lambda shift: float(shift.drifted))),
    }

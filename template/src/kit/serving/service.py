"""The service without HTTP: its settings, the model in use, the queue, the cache and the way back."""

import asyncio
import base64
import io
import json
import math
import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from hashlib import blake2b
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from fastapi import HTTPException
from PIL import Image

from src.kit.errors import UserError
from src.kit.hardware import SystemProbe, cores
from src.kit.serving.batching import Batcher, Model, Overloaded
from src.kit.serving.metrics import Metrics
from src.kit.serving.uploads import RETRY, Buckets, Uploads, measure_image
from src.kit.serving.watch import Shadow, drift_figures

OUTPUTS = Path("outputs")
FREE = ("rate", "workers", "cache_mb", "share")  # settings that may be 0
ENCODER = json.JSONEncoder(ensure_ascii=False)  # json.dumps would make a new one each time
ROWS = 16  # rows of a table count as much as an image


@dataclass(frozen=True)
class Settings:
    """How the service runs: from MODEL_PATH and SERVE_<OTHER NAME> of the environment, or `scripts/serve.py`."""

    model_path: str = ""  # a run, an export or an .onnx file; "": the newest export in outputs/
    other: str = ""  # a second model that predicts the same, as a shadow; or answers a `share` of the requests
    share: float = 0.0  # of the requests, from 0 to 1
    api_key: str = ""  # that requests to predict need; without one, there is no /reload
    rate: float = 0.0  # requests a second of one client; 0: any
    upload_mb: int = 10  # of a request
    pixels: int = 25_000_000  # of an image
    files: int = 32  # of a request
    held_mb: int = 256  # of all requests that wait
    queue: int = 256  # images that may wait
    batch: int = 16  # images computed at once
    workers: int = 0  # batches computed at the same time; 0: one per core
    cache_mb: int = 64  # of results; 0: none

    @staticmethod
    def from_environment() -> "Settings":
        """Read the environment's variables.

        Raises:
            UserError: one is no number, or out of range.
        """
        found: dict[str, Any] = {}
        for field in fields(Settings):
            name = "MODEL_PATH" if field.name == "model_path" else f"SERVE_{field.name.upper()}"
            text = os.environ.get(name, "")
            kind: Any = type(getattr(Settings, field.name))
            if not text:
                continue
            try:
                found[field.name] = kind(text)
            except ValueError as error:
                raise UserError(
                    f"{name} must be {'a number' if kind is float else 'an integer'}, not {text!r}."
                ) from error
        return Settings(**found).checked()

    def checked(self) -> "Settings":
        """These settings.

        Raises:
            UserError: a number is out of range.
        """
        for field in fields(self):
            value, least = getattr(self, field.name), 0 if field.name in FREE else 1
            if isinstance(value, int | float) and not least <= value < math.inf:
                raise UserError(f"{field.name} must be {least} or more, not {value}.")
        if self.share > 1 or (self.share and not self.other):
            raise UserError(f"share is of the requests that another model answers, up to 1, not {self.share:g}.")
        return self


class Cache:
    """Results by the content that they are for, up to a number of bytes; the oldest go first."""

    def __init__(self, most: int) -> None:
        self.most, self.size = most, 0
        self.found: OrderedDict[bytes, str] = OrderedDict()

    def get(self, key: bytes) -> str | None:
        """What was kept, which is now the newest."""
        if (text := self.found.get(key)) is not None:
            self.found.move_to_end(key)
        return text

    def put(self, key: bytes, text: str) -> None:
        """Keep a result."""
        if key in self.found or len(text) > self.most:
            return
        self.found[key] = text
        self.size += len(text)
        while self.size > self.most:
            self.size -= len(self.found.popitem(last=False)[1])


class Service:
    """The model in service, what waits for it, and what is known of both."""

    def __init__(self, settings: Settings) -> None:
        """Open the model.

        Raises:
            UserError: it cannot be opened.
        """
        self.settings, self.metrics = settings, Metrics()
        self.workers = settings.workers or cores(SystemProbe())
        models = self.open()
        scale = ROWS if models[0].rows else 1
        self.batchers = [
            Batcher(
                model,
                self.workers,
                settings.batch * scale,
                settings.queue * scale,
                self.measure,
                self.metrics.batches.observe,
            )
            for model in models
        ]
        self.batcher = self.batchers[0]
        self.shadow = Shadow(self.batchers[1], self.metrics) if settings.other and not settings.share else None
        self.previous: list[Model] | None = None
        self.reloading = asyncio.Lock()
        self.uploads = Uploads(settings.upload_mb << 20, settings.files, settings.queue * scale, settings.held_mb << 20)
        self.buckets, self.cache = Buckets(settings.rate), Cache(settings.cache_mb << 20)
        self.ready = False
        self.metrics.gauges = {
            "queue_length": ("Samples that wait", lambda: len(self.batcher.waiting)),
            "held_bytes": ("Bytes of the requests in memory", lambda: self.uploads.held),
            "cache_bytes": ("Bytes of the cached results", lambda: self.cache.size),
            "loaded_seconds": ("When the model was loaded, as Unix time", lambda: self.batcher.model.loaded),
        }
        self.metrics.drift = drift_figures(lambda: self.models)

    @property
    def models(self) -> list[Model]:
        """What is in service: the model, and the other one if there is one."""
        return [batcher.model for batcher in self.batchers]

    def open(self) -> list[Model]:
        """Open the models that the settings name, as they are now.

        Raises:
            UserError: one cannot be opened, or the two do not take the same data.
        """
        paths = [find_model(self.settings), *([Path(self.settings.other).expanduser()] if self.settings.other else [])]
        models = [Model(path, 1) for path in paths]
        if models[0].rows != models[-1].rows:
            raise UserError(f"{paths[-1]} takes other data than {paths[0]}: leave it out.")
        return models

    def choose(self, source: Any) -> Batcher:
        """Which model answers a request that begins with this sample: the same one each time it is sent."""
        if not self.settings.share:
            return self.batcher
        content = source if isinstance(source, bytes) else json.dumps(source, sort_keys=True).encode()
        return self.batchers[crc32(content) < self.settings.share * 2**32]

    def measure(self, source: Any) -> int:
        """The pixels of an image; 0 for a row."""
        return measure_image(source, self.settings.pixels) if isinstance(source, bytes) else 0

    async def predict(self, sources: list[Any]) -> str:
        """Predictions for the samples of one request, as JSON."""
        batcher = self.choose(sources[0])
        model = batcher.model
        keys = [key_of(model.version, source) for source in sources] if self.cache.most else [b""] * len(sources)
        texts = [self.cache.get(key) for key in keys]
        missing = [place for place, text in enumerate(texts) if text is None]
        try:
            answers = await self.metrics.timed(batcher, [sources[place] for place in missing]) if missing else []
        except Overloaded as error:
            raise HTTPException(503, "Too many requests wait already: try again.", RETRY) from error
        if self.shadow and missing:
            self.shadow.follow([sources[place] for place in missing], [answer for _, answer in answers])
        for place, (used, answer) in zip(missing, answers, strict=True):
            if isinstance(answer, UserError):
                which = f"Number {place + 1}: " if len(sources) > 1 else ""
                raise HTTPException(422, which + str(answer))
            if isinstance(answer, Exception):
                raise answer
            texts[place] = text = ENCODER.encode({"version": used.version, **to_json(answer)})
            if self.cache.most and used is model:
                self.cache.put(keys[place], text)
        self.metrics.cached.inc(len(sources) - len(missing))
        return f'{{"predictions": [{", ".join(text or "" for text in texts)}]}}'

    async def reload(self) -> Model:
        """Open the model again and answer with it from the next batch on; requests go on meanwhile.

        Raises:
            UserError: it cannot be opened, and the present one stays.
        """
        async with self.reloading:
            models = await asyncio.get_running_loop().run_in_executor(None, self.open)
            if models[0].rows != self.batcher.model.rows:
                raise UserError(f"{models[0].path} takes other data than the model in service: start another service.")
            self.previous = self.models
            self.use(models)
        return models[0]

    def use(self, models: Sequence[Model]) -> None:
        """Answer with these models from the next batch on."""
        for batcher, model in zip(self.batchers, models, strict=True):
            batcher.model = model
        self.metrics.reloads.inc()

    def rollback(self) -> Model:
        """Go back to the model before the last reload, which is still in memory.

        Raises:
            UserError: there is none.
        """
        if self.previous is None:
            raise UserError("There is no earlier model: nothing was reloaded.")
        earlier, self.previous = self.previous, self.models
        self.use(earlier)
        return self.batcher.model


def find_model(settings: Settings) -> Path:
    """The run, export or .onnx file that the settings name, or the newest export.

    Raises:
        UserError: there is none.
    """
    return Path(settings.model_path).expanduser() if settings.model_path else newest_export(OUTPUTS)


def newest_export(outputs: Path) -> Path:
    """The export that was written last below a folder.

    Raises:
        UserError: there is none.
    """
    found = [card.parent for card in outputs.glob("*/export/card.json")]
    if not found:
        raise UserError(f"{outputs} holds no export: run `python scripts/export.py`, or name a model.")
    return max(found, key=lambda folder: (folder / "card.json").stat().st_mtime)


def key_of(version: str, source: Any) -> bytes:
    """What a result is kept under."""
    content = source if isinstance(source, bytes) else json.dumps(source, sort_keys=True).encode()
    return blake2b(content, digest_size=20, key=version.encode()).digest()


def to_json(value: Any) -> Any:
    """A prediction without arrays and numbers that JSON lacks: class maps become PNG files in base64."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):  # before the rarer ones, which take longer to find out
        return value
    if isinstance(value, Mapping):
        return {key: to_json(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(each) for each in value]
    if isinstance(value, np.ndarray):
        file = io.BytesIO()
        Image.fromarray(value).save(file, "png", compress_level=1)
        return base64.b64encode(file.getvalue()).decode("ascii")
    return value

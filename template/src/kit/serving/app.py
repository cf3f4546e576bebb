"""The service over HTTP: endpoints, and the server that runs them."""

import asyncio
import logging
import math
import socket
import time
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from src.kit.errors import UserError
from src.kit.serving.batching import Model
from src.kit.serving.metrics import Counted
from src.kit.serving.service import Service, Settings, to_json
from src.kit.serving.uploads import RETRY, Uploads, check_key
from src.kit.serving.watch import drift_page

PAGE = Path(__file__).with_name("page.html")
PATHS = frozenset({"/", "/predict", "/model", "/health", "/ready", "/metrics", "/drift", "/reload", "/rollback"})
HEAD_BYTES = 1 << 16  # of a request's head
PIPELINED = 16  # requests of a connection that may wait for the one before them
HEAD_S = 10  # seconds for a request's head to arrive
BODY_LOOKS = 3  # times as long for its body
STOP_S = 30  # seconds for requests in progress to end
CONNECTIONS = 512  # at the same time
REFUSALS = {
    400: "No form or no JSON",
    401: "A wrong key, or none",
    413: "Too large",
    415: "Another type",
    422: "Something that cannot be predicted",
    429: "Too many requests from one client",
    503: "Too many requests wait already",
}
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self' data:"


def about(model: Model) -> dict[str, Any]:
    """What /model says, for clients and the page; of a table also a row, as an example."""
    card, example = model.card, getattr(model.predictor.kind, "example", None)
    described: dict[str, Any] = {"version": model.version, "model": card.model, "task": card.task}
    described |= {"path": model.path.name, "classes": card.classes, "shape": card.input["shape"]}
    described["metrics"] = to_json(card.metrics)
    return described | ({"example": to_json(example(card))} if model.rows and example else {})


class App(FastAPI):
    """FastAPI, whose layers take longer than a small network: POST /predict goes past them."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            limit(getattr(getattr(receive, "__self__", None), "config", None))
        direct = scope["type"] == "http" and scope["path"] == "/predict" and scope["method"] == "POST"
        await (self.state.directly if direct else super().__call__)(scope, receive, send)


def limit(config: Any) -> None:
    """Give uvicorn, started as `uvicorn src.api:app` without limits of its own, those of `serve.py`."""
    if isinstance(config, uvicorn.Config) and config.http == "auto":
        config.http_protocol_class = Protocol
        config.limit_concurrency = config.limit_concurrency or CONNECTIONS


def create_app(settings: Settings | None = None) -> FastAPI:
    """The service as an ASGI application.

    Raises:
        UserError: a setting is wrong, or the model cannot be opened.
    """
    service = Service(settings or Settings.from_environment())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        for batcher in service.batchers:
            batcher.start()
        service.ready = True
        yield
        service.ready = False
        for batcher in service.batchers:
            await batcher.stop()

    app = App(title="Predictions", lifespan=lifespan)
    app.state.service = service
    app.add_middleware(Counted, metrics=service.metrics, paths=PATHS)
    add_prediction(app, service)
    add_pages(app, service)
    if service.settings.api_key:
        add_reload(app, service)
    return app


def add_prediction(app: FastAPI, service: Service) -> None:
    """POST /predict: as a route, which describes it, and directly."""

    body = body_of(service.batcher.model, service.uploads)

    @app.post("/predict", openapi_extra={"requestBody": body}, responses=described(*REFUSALS))
    async def predict(request: Request) -> Response:
        """Predict images, sent as a form's files in the field `file` or as base64, or the rows of a table."""
        if key := service.settings.api_key:
            check_key(request, key)
        if wait := service.buckets.take(request.client.host if request.client else ""):
            seconds = {"Retry-After": str(math.ceil(wait))}
            raise HTTPException(429, f"Send at most {service.settings.rate:g} requests a second.", seconds)
        held = [0]
        try:
            sources = await service.uploads.read(request, service.batcher.model.rows, held)
            return Response(await service.predict(sources), media_type="application/json")
        finally:
            service.uploads.held -= held[0]

    async def directly(scope: Scope, receive: Receive, send: Send) -> None:
        started, status = time.perf_counter(), 500
        try:
            try:
                response = await predict(Request(scope, receive))
            except HTTPException as error:
                response = JSONResponse({"detail": error.detail}, error.status_code, error.headers)
            status = response.status_code
            await response(scope, receive, send)
        finally:
            service.metrics.count("/predict", status, time.perf_counter() - started)

    app.state.directly = directly


def described(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Refusals with these statuses, as OpenAPI describes them."""
    content = {"application/json": {"schema": schema_of({"detail": {"type": "string"}})}}
    return {status: {"description": REFUSALS[status], "content": content} for status in statuses}


def body_of(model: Model, uploads: Uploads) -> dict[str, Any]:
    """The body of /predict, as OpenAPI describes it."""
    binary, text = {"type": "string", "format": "binary"}, {"type": "string", "format": "byte"}
    most = uploads.rows if model.rows else uploads.files
    several = {"type": "array", "minItems": 1, "maxItems": most}
    rows, images = {"rows": {**several, "items": {"type": "object"}}}, {"images": {**several, "items": text}}
    content = {"application/json": {"schema": schema_of(rows if model.rows else images)}}
    if not model.rows:
        files = schema_of({"file": {**several, "items": binary}})
        content = {"multipart/form-data": {"schema": files}} | content
    return {"required": True, "content": content}


def schema_of(properties: dict[str, Any]) -> dict[str, Any]:
    """An object that has all of these properties."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def add_pages(app: FastAPI, service: Service) -> None:
    """What can be read: the page, the model, health and metrics."""
    page = PAGE.read_text("utf-8")

    @app.get("/", include_in_schema=False)
    async def index() -> HTMLResponse:
        return HTMLResponse(page, headers={"Content-Security-Policy": POLICY})

    @app.get("/model")
    async def model() -> JSONResponse:
        """What the model takes and gives, and how good it was."""
        other = {"other": about(service.models[1])} if service.settings.other else {}
        return JSONResponse(about(service.batcher.model) | other | {"key": bool(service.settings.api_key)})

    @app.get("/health")
    async def health() -> JSONResponse:
        """The process is alive."""
        return JSONResponse({"status": "ok"})

    @app.get("/ready", responses=described(503))
    async def ready() -> JSONResponse:
        """The model is loaded, and the service is not stopping."""
        if not service.ready:
            raise HTTPException(503, "The service is starting or stopping.", RETRY)
        return JSONResponse({"status": "ready", "version": service.batcher.model.version})

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Figures in Prometheus' format."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/drift", response_class=HTMLResponse)
    async def drift() -> HTMLResponse:
        """The latest samples and predictions beside the training data."""
        return HTMLResponse(drift_page(service.models), headers={"Content-Security-Policy": POLICY})


def add_reload(app: FastAPI, service: Service) -> None:
    """Endpoints that replace the model; only for those who have the key."""

    @app.post("/reload")
    async def reload(request: Request) -> JSONResponse:
        """Open the model again, such as a newer export in its place, without losing a request."""
        check_key(request, service.settings.api_key)
        try:
            return JSONResponse(about(await service.reload()))
        except UserError as error:
            raise HTTPException(409, f"The present model stays: {error}") from error

    @app.post("/rollback")
    async def rollback(request: Request) -> JSONResponse:
        """Answer with the model before the last reload again."""
        check_key(request, service.settings.api_key)
        try:
            return JSONResponse(about(service.rollback()))
        except UserError as error:
            raise HTTPException(409, str(error)) from error


class Together:
    """A transport that sends all that is written in a turn of the event loop at once: head and body, one packet."""

    def __init__(self, transport: Any, loop: asyncio.AbstractEventLoop) -> None:
        self.transport, self.loop = transport, loop
        self.parts: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    def write(self, data: bytes) -> None:
        """Send soon."""
        if data:
            if not self.parts:
                self.loop.call_soon(self.flush)
            self.parts.append(data)

    def flush(self) -> None:
        """Send now."""
        self.transport.write(b"".join(self.parts))
        self.parts.clear()

    def close(self) -> None:
        """Send, and end the connection."""
        self.flush()
        self.transport.close()


class Protocol(HttpToolsProtocol):
    """HTTP as uvicorn speaks it; bounds what the parser keeps, and ends connections whose request does not arrive.

    Attributes:
        head: bytes of the address and headers of a request, and of what follows its body.
        kept: bytes that arrived since a head or a part of a body was complete.
    """

    head = kept = 0
    seen: Any = ""  # the request in progress at the last look
    looks = 0  # at it

    def connection_made(self, transport: Any) -> None:
        together: Any = Together(transport, self.loop)
        super().connection_made(together)
        connection = transport.get_extra_info("socket")
        if connection.family in (socket.AF_INET, socket.AF_INET6):
            # asyncio does this only for sockets that say their protocol; without it, each answer waits 40 ms for an ACK
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.look()

    def connection_lost(self, exc: Exception | None) -> None:
        self.timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self.kept += len(data)
        super().data_received(data)
        if self.kept > HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("The request's head is too long.")

    def on_message_begin(self) -> None:
        self.head = 0
        if len(self.pipeline) >= PIPELINED:
            raise ValueError("too many requests at once")  # as the next one: it ends the parser, which answers 400
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self.count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.count(len(name) + len(value) + len(": \r\n"))
        super().on_header(name, value)

    def count(self, size: int) -> None:
        """Refuse a head that is too long, even if it arrived at once and so is complete before `kept` tells."""
        self.head += size
        if self.head > HEAD_BYTES:
            raise ValueError("too long")

    def on_headers_complete(self) -> None:
        self.kept = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self.kept = 0
        super().on_body(body)

    def look(self) -> None:
        """Look again every `HEAD_S`, or end the connection if its request still has not arrived."""
        self.looks = self.looks + 1 if self.cycle is self.seen else 0
        self.seen = self.cycle
        headless = self.cycle is None or self.cycle.response_complete
        if self.looks >= (1 if headless else BODY_LOOKS) and (headless or self.cycle.more_body):
            self.transport.close()
            return
        self.timer = self.loop.call_later(HEAD_S, self.look)


def serve_command(settings: Settings, host: str, port: int) -> None:
    """Serve until SIGTERM or Ctrl-C, which let the requests in progress end.

    Raises:
        UserError: the model cannot be opened, or the port not be used.
    """
    app = create_app(settings.checked())
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # whoever sends bad files would fill the log
    warnings.filterwarnings("ignore", module="PIL")
    try:
        listener = socket.create_server((host, port), backlog=1024)
    except (OSError, OverflowError) as error:
        raise UserError(f"Cannot listen on {host}:{port} ({error}): choose another --port or --host.") from error
    model = app.state.service.batcher.model
    shown = f"[{host}]" if ":" in host else host
    print(f"{model.path} at http://{shown}:{listener.getsockname()[1]} (Ctrl-C stops it)", flush=True)
    make_server(app).run(sockets=[listener])


def make_server(app: FastAPI) -> uvicorn.Server:
    """The server that runs the service, with its limits."""
    config = uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        log_level="error",  # a request that is no HTTP would be a warning
        access_log=False,
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=STOP_S,
    )
    return uvicorn.Server(config)

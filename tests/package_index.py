"""A package index on this machine, with small wheels: a real server for what asks an index."""

import http.server
import threading
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path


def add_wheel(folder: Path, file: str, requires: Sequence[str] = ()) -> None:
    """A wheel without content, on `folder`'s page of its package."""
    name, version, *_ = file.split("-")
    page = folder / name.replace("_", "-")
    page.mkdir(parents=True, exist_ok=True)
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}", *(f"Requires-Dist: {r}" for r in requires)]
    tag = file.removesuffix(".whl").split("-", 2)[2]
    with zipfile.ZipFile(page / file, "w") as wheel:
        info = f"{name}-{version}.dist-info"
        wheel.writestr(f"{info}/METADATA", "\n".join(metadata) + "\n")
        wheel.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n")
        wheel.writestr(f"{info}/RECORD", "")


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """The folder's address; a folder's page lists its files, which is all that pip and uv ask of an index."""
    settings = {"log_message": lambda *_: None, "protocol_version": "HTTP/1.1"}
    handler = type("Handler", (http.server.SimpleHTTPRequestHandler,), settings)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()

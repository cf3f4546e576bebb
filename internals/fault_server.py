"""An HTTP server on loopback that serves files from memory and misbehaves on demand; see `faults`."""

import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from faults import Asked, reply


class FaultServer(ThreadingHTTPServer):
    """Serves `files` by the last part of their address, and remembers what was asked for."""

    daemon_threads = True
    request_queue_size = 128
    rate = 0.0  # bytes a second for each connection; 0 = no limit
    ranges = True  # it understands them
    etags = True  # it sends them
    retry_after = 0.0  # seconds, beside an error
    seed = 0  # of the random numbers

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.files, self.asked = files, []
        self.counts, self.lock = Counter(), threading.Lock()
        self.moved = ""  # where "redirect" leads; "": to the file
        # decides about each request, and may use the random numbers
        self.fault: Callable[[Asked, random.Random], str | None] = lambda asked, rng: None

    def note(self, asked: Asked) -> random.Random:
        """Remember a request; its random numbers depend on what is asked for and how often, not on other threads."""
        with self.lock:
            key = (self.seed, asked.name, asked.range)
            self.counts[key] += 1
            self.asked.append(asked)
            return random.Random(f"{key} {self.counts[key]}")

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no news."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server, self.close_connection = self.server, True
        name = self.path.partition("?")[0].rpartition("/")[2]
        self.asked = Asked(name, self.headers["Range"], self.headers["If-Range"])
        rng = server.note(self.asked)
        fault = self.asked.fault = server.fault(self.asked, rng)
        if fault == "missing" or name not in server.files:
            self.send_error(404)
        elif fault == "redirect" and "?" not in self.path:
            place = server.moved or f"{server.url}/moved/{name}?again"
            self.head(302, {"Location": place, "Content-Length": "0"})
        elif fault == "hang":
            time.sleep(3)
        elif fault == "garbage":
            self.wfile.write(rng.randbytes(200))
        else:
            answer = reply(server.files[name], self.asked, rng, server.ranges, server.etags)
            if fault == "error" and server.retry_after:
                answer.headers["Retry-After"] = f"{server.retry_after:.0f}"
            self.head(answer.status, answer.headers, drip=fault == "drip head")
            self.send(answer.body, 10.0 if fault == "drip" else server.rate)
        if fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def do_CONNECT(self) -> None:
        self.server.asked.append(Asked(self.path, None, None))
        self.send_error(403)

    def head(self, status: int, headers: dict[str, str], drip: bool = False) -> None:
        """Send the status line and the headers."""
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.flush_headers()
        for _ in range(30 * drip):
            self.wfile.write(b"X")
            time.sleep(0.1)
        self.wfile.write(b": slow\r\n\r\n" if drip else b"\r\n")

    def send(self, body: bytes, rate: float) -> None:
        """Send the body, at most `rate` bytes a second."""
        step = max(int(rate / 50), 1) if rate else max(len(body), 1)
        began = time.monotonic()
        for at in range(0, len(body), step):
            if rate:
                time.sleep(max(began + at / rate - time.monotonic(), 0))
            self.wfile.write(body[at : at + step])
            self.asked.sent += len(body[at : at + step])

    def log_message(self, *arguments: object) -> None:
        """Keep quiet."""


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[FaultServer]:
    """A server in a thread, which answers requests in threads of their own."""
    server = FaultServer(files)
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.01))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.socket.close()  # and not `server_close`, which waits for answers that still drip

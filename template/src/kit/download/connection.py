"""One HTTP request for a range of bytes, parsed and checked, and retries with growing pauses.

Proxies and redirects work as in urllib, but no redirect leaves HTTP.
"""

import random
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from http.client import (
    BadStatusLine,
    HTTPConnection,
    HTTPException,
    HTTPResponse,
    HTTPSConnection,
    RemoteDisconnected,
)
from typing import Any, TypeVar
from urllib.error import HTTPError, URLError
from urllib.request import (
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    build_opener,
    getproxies,
)

TIMEOUT_S = 30.0
MAX_RETRY_AFTER_S = 60.0  # a server's Retry-After counts up to this
ATTEMPTS = 4  # in a row without `PROGRESS` new bytes
PROGRESS = 1 << 16  # bytes
BACKOFF_S = 1.0  # before the second attempt; doubles for each further one

T = TypeVar("T")


class SourceFailed(Exception):
    """This URL can't deliver the file; the message says why."""


class NoRoom(SourceFailed):
    """The file is larger than the free space."""


class Broken(Exception):
    """The connection failed; retrying may help. `wait_s` is the pause that the server asked for."""

    def __init__(self, reason: object, wait_s: float = 0.0) -> None:
        super().__init__(str(reason) or type(reason).__name__)
        self.wait_s = min(wait_s, MAX_RETRY_AFTER_S)


class Restart(Exception):
    """The bytes received so far are useless. `distrust` means: don't request ranges from this server again."""

    def __init__(self, reason: str, distrust: bool = False) -> None:
        super().__init__(reason)
        self.distrust = distrust


@dataclass(frozen=True)
class Answer:
    """An open response: `start` is its offset in the file, `total` the file's size (None: unknown).

    `validators` holds the ETag and Last-Modified headers, which identify the file's version.
    """

    body: HTTPResponse
    ranged: bool
    start: int
    total: int | None
    validators: Mapping[str, str]

    def read(self, limit: int) -> bytes:
        """Return the next bytes, at most `limit`, as soon as any arrive; b"" at the end."""
        try:
            return self.body.read1(limit)
        except (OSError, HTTPException, ValueError) as error:
            raise Broken(error) from error


def ask(url: str, start: int, stop: int | None, known: Mapping[str, str]) -> Answer:
    """Request the bytes from `start` to `stop`, or with `stop=None` the whole file without any range header.

    Args:
        known: validators of the bytes already here: if the file has changed, the server sends all of it (If-Range).

    Raises:
        Broken: worth a retry. SourceFailed: not worth one. Restart: the file has no such range (any more).
    """
    body = open_url(url, range_headers(start, stop, known), start)
    validators = {name: body.headers[name] for name in ("ETag", "Last-Modified") if body.headers[name]}
    if body.status != 206:
        return Answer(body, False, 0, body.length, validators)
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", body.headers.get("Content-Range", ""))
    if stop is None or match is None or int(match[1]) != start or not start <= int(match[2]) < int(match[3]):
        body.close()
        raise Restart("the server sent another range than requested", distrust=True)
    return Answer(body, True, start, int(match[3]), validators)


def range_headers(start: int, stop: int | None, known: Mapping[str, str]) -> dict[str, str]:
    """Return the request headers; only a strong ETag or a date may validate a range (RFC 9110, 13.1.5)."""
    headers = {"User-Agent": "dataset-download"}
    if stop is not None:
        headers["Range"] = f"bytes={start}-{stop - 1}"
        strong = "" if known.get("ETag", "W/").startswith("W/") else known["ETag"]
        if validator := strong or known.get("Last-Modified"):
            headers["If-Range"] = validator
    return headers


def open_url(url: str, headers: Mapping[str, str], start: int) -> HTTPResponse:
    """Send the request and turn every failure into `Broken`, `SourceFailed` or `Restart`."""
    try:
        request = Request(url, headers=dict(headers))
        response: HTTPResponse = opener(tuple(getproxies().items())).open(request, timeout=TIMEOUT_S)
    except HTTPError as error:
        error.close()
        if error.code == 416:
            raise Restart("the file has no such range", distrust=start == 0) from error
        if error.code < 500 and error.code not in (408, 425, 429):
            said = str(error.reason).partition("\n")[0].rstrip(".")  # urllib's of a loop has three lines
            raise SourceFailed(f"{url} answered {error.code} {said}") from error
        wait = error.headers.get("Retry-After", "")
        raise Broken(f"{error.code} {error.reason}", float(wait) if wait.isdecimal() else 0.0) from error
    except (URLError, HTTPException, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise SourceFailed(f"{url} ({reason})") from error
        if isinstance(reason, BadStatusLine) and not isinstance(reason, RemoteDisconnected):
            reason = "the answer is not HTTP"  # instead of its bytes, which no terminal should get
        raise Broken(reason) from error
    return response


class DeadlineConnection(HTTPConnection):
    """A connection that limits the time for status line and headers, even if they trickle in byte by byte."""

    def getresponse(self) -> HTTPResponse:
        timer = threading.Timer(TIMEOUT_S, shut_down, (self.sock,))
        timer.daemon = True
        timer.start()
        try:
            return super().getresponse()
        finally:
            timer.cancel()


class SecureDeadlineConnection(DeadlineConnection, HTTPSConnection):
    """The same over TLS."""


class PlainHandler(HTTPHandler):
    """Opens http: URLs with the deadline."""

    def http_open(self, req: Request) -> Any:
        return self.do_open(DeadlineConnection, req)


class SecureHandler(HTTPSHandler):
    """Opens https: URLs with the deadline; all connections share one set of certificates."""

    def __init__(self) -> None:
        self.context = ssl.create_default_context()
        super().__init__(context=self.context)

    def https_open(self, req: Request) -> Any:
        return self.do_open(SecureDeadlineConnection, req, context=self.context)


class WebRedirects(HTTPRedirectHandler):
    """Follows redirects to http: and https: only; urllib's go to ftp: too, whose answers are no HTTP responses."""

    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Request | None:
        if not newurl.startswith(("http://", "https://")):
            raise HTTPError(req.full_url, code, f"{msg} and sent on to {newurl}", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@lru_cache(maxsize=1)
def opener(proxies: tuple[tuple[str, str], ...]) -> OpenerDirector:
    """Return an opener for these proxies that follows redirects and applies the deadline."""
    return build_opener(ProxyHandler(dict(proxies)), PlainHandler(), SecureHandler(), WebRedirects())


def shut_down(connection: socket.socket) -> None:
    """Close a connection under its reader, which then sees the end of the stream."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def retry(source: str, attempt: Callable[[], T], position: Callable[[], int], check: Callable[[], None]) -> T:
    """Call `attempt` until it succeeds, again after each `Broken`; return its result.

    Args:
        position: bytes received so far; an attempt that received `PROGRESS` of them doesn't count as a failure.
        check: called often; raises when the download has been cancelled.

    Raises:
        SourceFailed: `ATTEMPTS` failures in a row.
    """
    failures, before = 0, position()
    while True:
        try:
            return attempt()
        except Broken as error:
            broken = error
        failures = 1 if position() - before >= PROGRESS else failures + 1
        before = position()
        if failures == ATTEMPTS:
            raise SourceFailed(f"{source} ({broken})") from broken
        pause(max(broken.wait_s, backoff(failures)), check)


def backoff(failures: int) -> float:
    """Return the seconds to wait after this many failures, with jitter so that segments don't return all at once."""
    return BACKOFF_S * 2 ** (failures - 1) * random.uniform(0.8, 1.2)


def pause(seconds: float, check: Callable[[], None]) -> None:
    """Sleep, but call `check` five times a second so that a cancelled download ends soon."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        check()
        time.sleep(min(left, 0.2))

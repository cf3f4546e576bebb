"""One HTTP request for a range of bytes, and what the answer says about itself. Proxies as urllib finds them."""

import re
import socket
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import HTTPHandler, HTTPSHandler, OpenerDirector, ProxyHandler, Request, build_opener, getproxies

TIMEOUT_S = 30.0
LONGEST_WAIT_S = 60.0  # that a server may ask for


class SourceFailed(Exception):
    """This address will not give the file; the message says why."""


class Broken(Exception):
    """The connection failed; trying again may help."""

    def __init__(self, reason: object, wait_s: float = 0.0) -> None:
        super().__init__(str(reason) or type(reason).__name__)
        self.wait_s = min(wait_s, LONGEST_WAIT_S)


class Restart(Exception):
    """What was received so far is of no use; `distrust` if the server's ranges aren't to be used again."""

    def __init__(self, reason: str, distrust: bool = False) -> None:
        super().__init__(reason)
        self.distrust = distrust


@dataclass(frozen=True)
class Answer:
    """An open body, where it starts in the file, the size of the whole (None = unknown), and what identifies it."""

    body: HTTPResponse
    ranged: bool
    start: int
    total: int | None
    validators: Mapping[str, str]

    def read(self, limit: int) -> bytes:
        """The next bytes, at most `limit`, as soon as there are any; none at the end."""
        try:
            return self.body.read1(limit)
        except (OSError, HTTPException, ValueError) as error:
            raise Broken(error) from error


def ask(url: str, start: int, stop: int | None, known: Mapping[str, str]) -> Answer:
    """Request the bytes from `start` to `stop`, or with `stop=None` the whole file without any mention of ranges.

    Args:
        known: the validators of what is already there: if they aren't the file's any more, the whole comes (If-Range).

    Raises:
        Broken: worth another attempt. SourceFailed: not worth it. Restart: the file has no such range (any more).
    """
    headers = {"User-Agent": "dataset-download"}
    if stop is not None:
        headers["Range"] = f"bytes={start}-{stop - 1}"
        strong = "" if known.get("ETag", "W/").startswith("W/") else known["ETag"]  # weak ones aren't for ranges
        if validator := strong or known.get("Last-Modified"):
            headers["If-Range"] = validator
    try:
        body = opener(tuple(getproxies().items())).open(Request(url, headers=headers), timeout=TIMEOUT_S)
    except HTTPError as error:
        error.close()
        if error.code == 416:
            raise Restart("the file has no such range", distrust=start == 0) from error
        if error.code < 500 and error.code not in (408, 425, 429):
            raise SourceFailed(f"{url} answered {error.code} {error.reason}") from error
        wait = error.headers.get("Retry-After", "")
        raise Broken(f"{error.code} {error.reason}", float(wait) if wait.isdecimal() else 0.0) from error
    except (URLError, HTTPException, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise SourceFailed(f"{url} ({reason})") from error
        raise Broken(reason) from error
    validators = {name: body.headers[name] for name in ("ETag", "Last-Modified") if body.headers[name]}
    if body.status != 206:
        return Answer(body, False, 0, body.length, validators)
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", body.headers.get("Content-Range", ""))
    if stop is None or match is None or int(match[1]) != start or not start <= int(match[2]) < int(match[3]):
        body.close()
        raise Restart("the server sent another range than asked for", distrust=True)
    return Answer(body, True, start, int(match[3]), validators)


class Deadline(HTTPConnection):
    """A connection whose status line and headers must be complete in time, even if they come byte by byte."""

    def getresponse(self) -> HTTPResponse:
        timer = threading.Timer(TIMEOUT_S, cut, (self.sock,))
        timer.daemon = True
        timer.start()
        try:
            return super().getresponse()
        finally:
            timer.cancel()


class SecureDeadline(Deadline, HTTPSConnection):
    """The same with TLS."""


class PlainHandler(HTTPHandler):
    """Opens http: with the deadline."""

    def http_open(self, req: Request) -> Any:
        return self.do_open(Deadline, req)


class SecureHandler(HTTPSHandler):
    """Opens https: with the deadline, and one set of certificates for all connections."""

    def __init__(self) -> None:
        self.context = ssl.create_default_context()
        super().__init__(context=self.context)

    def https_open(self, req: Request) -> Any:
        return self.do_open(SecureDeadline, req, context=self.context)


@lru_cache(maxsize=1)
def opener(proxies: tuple[tuple[str, str], ...]) -> OpenerDirector:
    """The handlers for these proxies: following redirects, and with the deadline."""
    return build_opener(ProxyHandler(dict(proxies)), PlainHandler(), SecureHandler())


def cut(connection: socket.socket) -> None:
    """Wake whoever reads from the connection, with its end."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)

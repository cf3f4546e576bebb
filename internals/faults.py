"""What a file server may get wrong, and the replies that show it."""

import random
import re
import zlib
from dataclasses import dataclass

FAULTS = (
    "cut",  # the body ends too early
    "reset",  # the same, and the connection is reset
    "corrupt",  # one bit is another
    "ignore range",  # the whole file, whatever was asked for
    "wrong range",  # another range than asked for, and says so
    "false range",  # the bytes of another range, and doesn't say so
    "too long",  # announces more bytes than there are
    "too short",  # announces fewer
    "wrong total",  # says that the file has another size
    "etag",  # another ETag each time
    "ignore if-range",  # a range, whatever has changed since
    "error",  # 500, 503 or 429
    "missing",  # 404
    "redirect",  # to the same file at another address
    "no length",  # chunks, and nothing about their sum
    "garbage",  # no HTTP
    "drip",  # the body comes byte by byte
    "drip head",  # the headers come byte by byte
    "hang",  # no answer at all
)


@dataclass
class Asked:
    """A request, and the fault that it met."""

    name: str
    range: str | None
    if_range: str | None
    fault: str | None = None
    sent: int = 0  # bytes of the body


@dataclass
class Reply:
    """Status, headers and body."""

    status: int
    headers: dict[str, str]
    body: bytes = b""


def reply(content: bytes, asked: Asked, rng: random.Random, ranges: bool, etags: bool) -> Reply:
    """The file or the range of it that was asked for, but for the fault; a server may know no ranges and no ETags."""
    fault, total = asked.fault, len(content)
    if fault == "error":
        return Reply(rng.choice((500, 503, 429)), {"Content-Length": "0"})
    etag = f'"{zlib.crc32(content):x}{rng.random() if fault == "etag" else ""}"'
    start, stop, status, headers = 0, total, 200, {"ETag": etag} if etags else {}
    match = re.fullmatch(r"bytes=(\d+)-(\d+)", asked.range or "")
    unchanged = asked.if_range in (None, etag) or fault == "ignore if-range"
    if match and ranges and unchanged and fault != "ignore range":
        start, stop, status = int(match[1]), min(int(match[2]) + 1, total), 206
        if start >= total:
            return Reply(416, {"Content-Length": "0"})
        start = rng.randrange(stop) if fault == "wrong range" else start
        said = total + rng.choice((-1, 1, 10**15)) if fault == "wrong total" else total
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{said}"
    at = rng.randrange(total) if fault == "false range" else start
    body = (content[at:] + content)[: stop - start]
    lie = {"too long": rng.randrange(1, 999), "too short": -rng.randrange(len(body) + 1)}.get(fault or "", 0)
    if fault == "no length":
        chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        return Reply(status, headers | {"Transfer-Encoding": "chunked"}, chunk + b"0\r\n\r\n")
    headers["Content-Length"] = str(len(body) + lie)
    return Reply(status, headers, spoil(body, fault, rng))


def spoil(body: bytes, fault: str | None, rng: random.Random) -> bytes:
    """Cut the body, or flip a bit of it."""
    if fault in ("cut", "reset"):
        return body[: rng.randrange(len(body) + 1)]
    if fault == "corrupt" and body:
        at = rng.randrange(len(body))
        return body[:at] + bytes([body[at] ^ 1 << rng.randrange(8)]) + body[at + 1 :]
    return body

"""Read requests and refuse bad ones, each with one sentence: sizes, types, keys and rates."""

import base64
import binascii
import hmac
import io
import json
import math
import re
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from fastapi import HTTPException, Request
from PIL import Image
from starlette.requests import ClientDisconnect

from src.kit.errors import UserError
from src.kit.inference import is_tiff, read_tiff_header

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")  # Pillow reads others too, some with programs of the system
CLIENTS = 10_000  # whose rates are remembered
BOUNDARY = re.compile(r'boundary=(?:"([^"]{1,70})"|([^\s;,"]{1,70}))', re.IGNORECASE)
NAME = re.compile(rb'content-disposition:[^\r\n]*?;\s*name="?([^";\r\n]*)', re.IGNORECASE)
LONGEST = 1000  # characters of a text in a row
LARGEST = 2**63
RETRY = {"Retry-After": "1"}


class Uploads:
    """The bodies that are held in memory, of all requests together.

    Attributes:
        held: bytes of the requests that are being read or wait for their answers.
    """

    def __init__(self, most: int, files: int, rows: int, total: int) -> None:
        """`most`: bytes of a request; `files`, `rows`: in one; `total`: bytes of all requests together."""
        self.most, self.files, self.rows, self.total = most, files, rows, total
        self.held = 0

    async def read(self, request: Request, table: bool, held: list[int]) -> list[Any]:
        """The files or rows of a request; adds the bytes that it holds to `held[0]`.

        Raises:
            HTTPException: 400 to 422 for a request that is wrong, 503 for too many at once.
        """
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if request.headers.get("content-encoding", "identity") != "identity":
            raise HTTPException(415, "Send the body as it is, without Content-Encoding.")
        if kind != "application/json" and (table or kind != "multipart/form-data"):
            wanted = 'application/json: {"rows": [...]}' if table else "multipart/form-data or application/json"
            raise HTTPException(415, f"Send {wanted}, not {shorten(kind) or 'a body without Content-Type'}.")
        body = await self.body(request, held)
        if kind == "application/json":
            found: list[Any] = read_rows(body) if table else read_images(body)
        else:
            found = read_form(body, request.headers["content-type"])
        most = self.rows if table else self.files
        if not 0 < len(found) <= most:
            what = "rows" if table else "images"
            raise HTTPException(422, f"Send 1 to {most} {what} in a request, not {len(found)}.")
        return found

    async def body(self, request: Request, held: list[int]) -> bytes:
        """A body, whose parts are counted as they come."""
        claimed = request.headers.get("content-length", "0")
        if claimed.isdecimal() and len(claimed) < 20 and int(claimed) > self.most:
            raise self.too_large()
        parts = []
        try:
            async for part in request.stream():
                parts.append(part)
                held[0] += len(part)
                self.held += len(part)
                if held[0] > self.most:
                    raise self.too_large()
                if self.held > self.total:
                    raise HTTPException(503, "Too many uploads at once: try again.", RETRY)
        except ClientDisconnect as error:
            raise HTTPException(400, "The connection ended before the body.") from error
        return b"".join(parts)

    def too_large(self) -> HTTPException:
        """The answer to a body above the limit."""
        return HTTPException(413, f"Send at most {self.most >> 20} MB in a request.")


def read_form(body: bytes, kind: str) -> list[bytes]:
    """The contents of a form's files (RFC 7578), all of which have to be in the field `file`.

    Raises:
        HTTPException: 400 or 422 for another field, or something that is no form.
    """
    boundary = BOUNDARY.search(kind)
    parts = (b"\r\n" + body).split(b"\r\n--" + (boundary[1] or boundary[2]).encode()) if boundary else []
    if len(parts) < 2 or not parts[-1].startswith(b"--"):
        raise HTTPException(400, "The body is no form: send files, as in curl -F file=@photo.jpg.")
    files = []
    for part in parts[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        name = NAME.search(head)
        if not name or name[1] != b"file":
            other = shorten(name[1].decode("utf-8", "replace")) if name else ""
            raise HTTPException(422, f"Send files in the field `file`, not in `{other}`.")
        if b"filename" not in head.lower():
            raise HTTPException(422, "Send a file with a name in the field `file`, not a text.")
        files.append(content)
    return files


def read_json(body: bytes, key: str, example: str) -> list[Any]:
    """The list under the only key of a JSON object."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"The body is not JSON: send {example}.") from error
    if not isinstance(content, dict) or set(content) != {key} or not isinstance(content[key], list):
        raise HTTPException(422, f"Send {example}.")
    return content[key]


def read_images(body: bytes) -> list[bytes]:
    """The images of {"images": [BASE64, ...]}, each with or without "data:image/png;base64," before it."""
    found = []
    for text in read_json(body, "images", '{"images": ["<base64>"]}'):
        try:
            if not isinstance(text, str):
                raise ValueError
            data = text.partition(",")[2] if text.startswith("data:") else text
            found.append(base64.b64decode(data, validate=True))
        except (ValueError, binascii.Error) as error:
            sentence = "Send the images' contents in base64; addresses are not fetched."
            raise HTTPException(422, sentence) from error
    return found


def read_rows(body: bytes) -> list[Mapping[str, Any]]:
    """The rows of {"rows": [{COLUMN: VALUE, ...}, ...]}."""
    rows = read_json(body, "rows", '{"rows": [{"column": value}]}')
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise HTTPException(422, f"Row {number} is not an object of columns and values.")
        for name, value in row.items():
            if not is_cell(value):
                raise HTTPException(422, f"Row {number}, {shorten(name)!r}: send a number, a short text or null.")
    return rows


def is_cell(value: Any) -> bool:
    """Whether a value can be in a table."""
    if isinstance(value, str):
        return len(value) <= LONGEST
    if isinstance(value, int):
        return -LARGEST < value < LARGEST
    return value is None or (isinstance(value, float) and math.isfinite(value))


def measure_image(content: bytes, most: int) -> int:
    """The pixels of an image, from its header: a file of 410 KiB can decode to 412 MiB.

    Raises:
        UserError: it is no image, or has more than `most` pixels.
    """
    try:
        if is_tiff(content):
            width, height = read_tiff_header(content)[:2]
        else:
            with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
                width, height = opened.size
    except Exception as error:  # what a parser stumbles over
        if isinstance(error, Image.DecompressionBombError):
            raise UserError(
                f"An image may have {most:,} pixels, and this one has far more: make it smaller."
            ) from error
        raise UserError(f"An image of {len(content):,} bytes is none of {', '.join(FORMATS)}.") from error
    if width * height > most:
        raise UserError(f"An image may have {most:,} pixels, not {width} x {height}: make it smaller.")
    return width * height


class Buckets:
    """Token buckets: each client may send `rate` requests a second, and twice as many at once after a pause."""

    def __init__(self, rate: float) -> None:
        """`rate`: 0 for any."""
        self.rate, self.burst = rate, max(1.0, 2 * rate)
        self.clients: OrderedDict[str, tuple[float, float]] = OrderedDict()  # client -> tokens, and when they were

    def take(self, client: str, now: float | None = None) -> float:
        """Take a token; the seconds to wait for one if there is none, else 0."""
        if not self.rate:
            return 0.0
        now = time.monotonic() if now is None else now
        tokens, then = self.clients.pop(client, (self.burst, now))
        tokens = min(self.burst, tokens + (now - then) * self.rate)
        missing = max(0.0, 1 - tokens)
        self.clients[client] = (tokens if missing else tokens - 1, now)
        while len(self.clients) > CLIENTS:
            self.clients.popitem(last=False)  # the one that was silent for longest
        return missing / self.rate


def check_key(request: Request, key: str) -> None:
    """Compare the request's key, in a time that does not tell how much of it is right.

    Raises:
        HTTPException: 401 for a wrong key or none.
    """
    given = request.headers.get("x-api-key") or request.headers.get("authorization", "").removeprefix("Bearer ")
    if not hmac.compare_digest(given.encode("utf-8", "replace"), key.encode("utf-8", "replace")):
        sentence = "Send this service's key in the header X-API-Key."
        raise HTTPException(401, sentence, {"WWW-Authenticate": "Bearer"})


def shorten(text: str) -> str:
    """At most 60 characters, for a message."""
    return text if len(text) <= 60 else f"{text[:57]}..."

"""Where the files of shards come from: HTTP, or storage that fsspec knows, such as s3://."""

import logging
import os
import re
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from src.kit.config import UserError
from src.kit.download import Broken, SourceFailed, ask, digest, fetch, retry
from src.kit.errors import way_out
from src.kit.shards.read import SHA256_PREFIX, ShardFile

MAX_INDEX_BYTES = 1 << 28  # 2 million shards
CHUNK = 1 << 20
PIECE, TOGETHER = 4 << 20, 8  # bytes of a range, and ranges that are asked for at once: one stream alone is slow
URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)  # two letters at least: C:// is a drive
FOREVER = (FileNotFoundError, PermissionError, IsADirectoryError)  # what no other try changes
NO_KEY = "NoCredentialsError"  # botocore's, which need not be installed


class Store(Protocol):
    """Files behind URLs."""

    def read(self, url: str) -> bytes:
        """A small file's content, after retries. Raises `SourceFailed` or `Restart`."""
        ...

    def fetch(self, url: str, target: Path, file: ShardFile) -> Path:
        """Put a file of this size and checksum at `target`, unless it is there.

        Raises:
            UserError: the storage or the disk fails, or the content is another. What came is kept and resumed.
        """
        ...


def open_store(root: str) -> Store:
    """The store of a URL.

    Raises:
        UserError: no URL, one with a password, of an unknown kind, or one whose package is missing.
    """
    try:
        password = urlsplit(root).password
    except ValueError as error:
        raise UserError(f"data.root={root} is no URL: {error}.") from error
    if password:
        raise UserError("data.root holds a password, which each run would save: leave it to environment variables.")
    return Web() if root.lower().startswith(("http://", "https://")) else Bucket(root)


class Web:
    """Files behind HTTP."""

    def read(self, url: str) -> bytes:
        return retry(url, partial(read_small_file, url), lambda: 0, lambda: None)

    def fetch(self, url: str, target: Path, file: ShardFile) -> Path:
        return fetch(url, target, f"{SHA256_PREFIX}{file.sha256}", file.bytes, quiet=True)


def read_small_file(url: str) -> bytes:
    """Read a file behind HTTP into memory."""
    answer = ask(url, 0, None, {})
    content = bytearray()
    with answer.body:
        while chunk := answer.read(CHUNK):
            content += chunk
            refuse_endless(url, len(content))
    if answer.total not in (None, len(content)):
        raise Broken(f"{len(content)} of {answer.total} bytes came")
    return bytes(content)


def refuse_endless(url: str, size: int) -> None:
    """Refuse what is too large for an index."""
    if size > MAX_INDEX_BYTES:
        raise SourceFailed(f"{url} is larger than any index of shards")


class Bucket:
    """Files of a file system of fsspec, which finds keys and endpoints in the environment, as its packages do."""

    def __init__(self, root: str) -> None:
        for name in ("botocore", "aiobotocore"):  # Paddle shows what they note
            logging.getLogger(name).setLevel(logging.WARNING)
        try:
            import fsspec

            self.system: Any = fsspec.url_to_fs(root)[0]
        except ImportError as error:
            raise UserError(
                f"data.root={root} cannot be read here ({error}): install that, and add it to requirements-own.txt."
            ) from error
        except ValueError as error:
            raise UserError(
                f"data.root={root} cannot be read ({error}): use a folder, or a URL that begins with http, https or s3."
            ) from error
        except OSError as error:  # such as FTP, which connects here
            raise UserError(f"data.root={root} cannot be reached ({error}): check the network and the name.") from error

    def read(self, url: str) -> bytes:
        content = retry(url, partial(self.ask, url, 0, MAX_INDEX_BYTES + 1), lambda: 0, lambda: None)
        refuse_endless(url, len(content))
        return content

    def ask(self, url: str, start: int, stop: int) -> bytes:
        """The bytes from `start` to `stop` of a file, fewer at its end."""
        try:
            return bytes(self.system.cat_file(url, start=start, end=stop))
        except Exception as error:
            raise explain(url, error) from error

    def fetch(self, url: str, target: Path, file: ShardFile) -> Path:
        checksum = f"{SHA256_PREFIX}{file.sha256}"
        if target.is_file() and digest(target, checksum) == checksum:
            return target
        part = target.with_name(f"{target.name}.part")
        try:
            part.touch()
            retry(url, partial(self.receive, url, part, file.bytes), lambda: part.stat().st_size, lambda: None)
            if digest(part, checksum) != checksum:
                part.unlink()
                raise SourceFailed(f"{url} has other content than its index says")
            os.replace(part, target)
        except SourceFailed as error:
            raise UserError(f"Cannot fetch {error}: check the network and data.root, then run again.") from error
        except OSError as error:
            advice = way_out(error, "free some space or set data.shard_cache to a writable folder")
            raise UserError(f"Cannot write {target}: {error.strerror or error}; {advice}.") from error
        return target

    def receive(self, url: str, part: Path, size: int) -> None:
        """Append to `part` what it lacks of a file of `size` bytes, several ranges at a time."""
        with part.open("ab") as file:
            while (first := file.tell()) < size:
                starts = list(range(first, min(first + PIECE * TOGETHER, size), PIECE))
                stops = [min(start + PIECE, size) for start in starts]
                try:
                    pieces = self.system.cat_ranges([url] * len(starts), starts, stops, on_error="return")
                except Exception as error:
                    raise explain(url, error) from error
                for piece, start, stop in zip(pieces, starts, stops, strict=True):
                    if isinstance(piece, Exception):
                        raise explain(url, piece) from piece
                    file.write(piece)
                    if len(piece) < stop - start:
                        raise Broken(f"{start + len(piece)} of {size} bytes came")


def explain(url: str, error: Exception) -> Exception:
    """`SourceFailed` if another try would not help, else `Broken`; each of fsspec's packages has errors of its own."""
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    if isinstance(error, FOREVER) or type(error).__name__ == NO_KEY:
        return SourceFailed(f"{url} ({reason})")
    return Broken(reason)

"""Fetch data files: in parallel, resumed, verified, from mirrors; unpack them safely."""

from src.kit.download.checksums import digest
from src.kit.download.connection import Broken, Restart, SourceFailed, ask
from src.kit.download.fetch import RemoteFile, cache_folder, clean, extract, fetch, fetch_all, locked, tidy
from src.kit.download.retry import retry

__all__ = [
    "Broken",
    "RemoteFile",
    "Restart",
    "SourceFailed",
    "ask",
    "cache_folder",
    "clean",
    "digest",
    "extract",
    "fetch",
    "fetch_all",
    "locked",
    "retry",
    "tidy",
]

"""Where a file can be had: its addresses in turn, or DATASET_MIRROR in their place."""

import os
from collections.abc import Sequence
from pathlib import Path

from src.kit.config import UserError


def locate(urls: str | Sequence[str]) -> list[str]:
    """The addresses to try in turn; with DATASET_MIRROR only the file's address or path in there."""
    addresses = [urls] if isinstance(urls, str) else list(urls)
    assert addresses, "no address"
    mirror = os.environ.get("DATASET_MIRROR", "")
    if not mirror:
        return addresses
    name = addresses[0].rpartition("/")[2]
    if is_web(mirror):
        return [f"{mirror.rstrip('/')}/{name}"]
    path = Path(mirror).expanduser() / name
    if not path.is_file():
        raise UserError(
            f"DATASET_MIRROR={mirror} has no file {name}: copy it there from {addresses[0]}, or unset DATASET_MIRROR."
        )
    return [str(path)]


def is_web(source: str) -> bool:
    """Whether it is an address, and not a path."""
    return source.startswith(("http://", "https://"))

"""Fetch one file: resumed, retried, verified, and put in place only when it is whole.

DATASET_MIRROR names a folder or a base URL that holds the publishers' files under their own names, for machines behind
a firewall. The usual proxy variables (https_proxy, ...) are honoured.
"""

import errno
import hashlib
import os
from pathlib import Path

from src.utils.archives import DAMAGE, gunzip
from src.utils.errors import UserError
from src.utils.transfer import transfer

CHUNK = 1 << 18
MAX_RATIO = 200  # unpacked : packed; image data packs at most a tenth as well


def fetch(url: str, target: Path, checksum: str) -> Path:
    """Download `url` to `target`, unpacked where only `url` ends in .gz; a file that is already there is only verified.

    Args:
        checksum: "md5:<hex>" or "sha256:<hex>" of `target`'s content.

    Raises:
        UserError: no connection, an HTTP error, another checksum, or a disk that cannot be written. `target` is then
            as it was before. What was received lies in `*.part`, to be resumed, unless it was wrong.
    """
    if target.is_file() and digest(target, checksum) == checksum:
        print(f"{target} is already there.")
        return target
    source = locate(url)
    part = target.with_name(source.replace("\\", "/").rpartition("/")[2] + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # what an earlier run left may be of another file: then once more from the first byte
        for _ in range(2 if part.exists() else 1):
            transfer(source, part)
            found = install(part, target, checksum, unpack=url.endswith(".gz") and target.suffix != ".gz")
            if found == checksum:
                return target
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            part.unlink(missing_ok=True)
        reason = f"Cannot write {target}: {error.strerror or error}"
        raise UserError(f"{reason}; free some space or set data.root to a folder that can be written.") from error
    raise UserError(
        f"{source} has another content than its publisher's ({found}, not {checksum}): try again or another mirror."
    )


def locate(url: str) -> str:
    """The URL, or the file's place in DATASET_MIRROR."""
    mirror = os.environ.get("DATASET_MIRROR", "")
    name = url.rpartition("/")[2]
    if not mirror:
        return url
    if mirror.startswith(("http://", "https://")):
        return f"{mirror.rstrip('/')}/{name}"
    path = Path(mirror).expanduser() / name
    if not path.is_file():
        raise UserError(
            f"DATASET_MIRROR={mirror} has no file {name}: copy it there from {url}, or unset DATASET_MIRROR."
        )
    return str(path)


def install(part: Path, target: Path, checksum: str, unpack: bool) -> str:
    """Move the received file to `target` if its checksum is right, else delete it; returns the checksum found."""
    whole = part
    try:
        if unpack:
            whole = target.with_name(f"{target.name}.unpacked")
            gunzip(part, whole, MAX_RATIO * part.stat().st_size)
        found = digest(whole, checksum)
        if found == checksum:
            os.replace(whole, target)
    except DAMAGE as error:
        return f"damaged: {error}"
    finally:
        whole.unlink(missing_ok=True)
        part.unlink(missing_ok=True)
    return found


def digest(path: Path, checksum: str) -> str:
    """The file's checksum by the algorithm that `checksum` names."""
    algorithm = checksum.partition(":")[0]
    total = hashlib.new(algorithm, usedforsecurity=algorithm != "md5")
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            total.update(chunk)
    return f"{algorithm}:{total.hexdigest()}"

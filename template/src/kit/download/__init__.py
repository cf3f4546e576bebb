"""Download files: in parallel segments, resumable, verified by checksum, from mirrors; and unpack them safely.

`DATASET_MIRROR` names a folder or a base URL that holds the publishers' files under their own names, for machines
behind a firewall. The usual proxy variables (https_proxy, no_proxy, ...) apply.
"""

from src.kit.download.connection import Broken, Restart, SourceFailed, ask, retry
from src.kit.download.fetching import RemoteFile, fetch, fetch_all
from src.kit.download.files import cache_folder, clean, digest, extract, locked, remove_empty_folders_on_failure

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
    "remove_empty_folders_on_failure",
    "retry",
]

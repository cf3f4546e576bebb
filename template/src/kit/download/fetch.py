"""Fetch data files: resumed, in parallel, from mirrors, verified always; and unpack them without trusting them.

DATASET_MIRROR names a folder or a base URL that holds the publishers' files under their own names, for machines behind
a firewall. The usual proxy variables (https_proxy, no_proxy, ...) are honoured.
"""

from src.kit.download.archives import extract
from src.kit.download.cache import cache_folder, clean, locked, tidy
from src.kit.download.fetching import RemoteFile, fetch, fetch_all

__all__ = ["RemoteFile", "cache_folder", "clean", "extract", "fetch", "fetch_all", "locked", "tidy"]

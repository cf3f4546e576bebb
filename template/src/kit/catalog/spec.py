"""What is known of each data set (`src/configs/data/dataset_spec.yaml`), and how its files come here."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from src.kit.config import UserError, option_names, unknown

FILE = Path(__file__).resolve().parents[2] / "configs" / "data" / "dataset_spec.yaml"
ACCESS = ("bundled", "made", "open", "login", "own")
CHECKSUM = re.compile(r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Part:
    """One published file and what becomes of it."""

    urls: tuple[str, ...]  # the publisher's first, then mirrors; without a login's, only the file's name
    target: str  # below data.root: a file, or the folder that an archive is unpacked into
    checksum: str  # of the target's content, of the archive where it is unpacked
    bytes: int | None  # as transferred; None where the publisher does not say
    unpacked: int | None  # most bytes of an unpacked archive; None: it is no archive
    holds: Mapping[str, int]  # files that the unpacked folder must have, and their bytes
    listed: bool = False  # one of a list: too many to show each

    @property
    def archive(self) -> str:
        """The name of the published file."""
        return self.urls[0].rpartition("/")[2]

    def is_whole(self, root: Path) -> bool:
        """Whether the target is there, as far as names and sizes tell."""
        target = root / self.target
        files = ((target / name, size) for name, size in self.holds.items())
        return target.exists() and all(path.is_file() and path.stat().st_size == size for path, size in files)


@dataclass(frozen=True)
class Spec:
    """One data set, with the keys of `dataset_spec.yaml`; a list of files has become a part for each."""

    name: str
    tasks: tuple[str, ...]
    homepage: str | None
    licence: str
    access: str
    bytes: int
    unpacked: int
    classes: int | None
    splits: Mapping[str, int]
    debug_twin: str | None
    files: tuple[Part, ...]

    def __post_init__(self) -> None:
        assert self.access in ACCESS, (self.name, self.access)
        assert bool(self.files) == (self.access in ("open", "login")), self.name
        for part in self.files:
            assert part.urls, (self.name, part.target)
            assert CHECKSUM.fullmatch(part.checksum), (self.name, part.target, part.checksum)

    def is_whole(self, root: Path) -> bool:
        """Whether all of its files are below `root`."""
        return all(part.is_whole(root) for part in self.files)


@cache
def specs() -> dict[str, Spec]:
    """Every data set of the file that this project has, by name: one of no detection leaves COCO and its lists out."""
    table, there = OmegaConf.load(FILE), option_names("data")
    return {name: parse(name, values) for name, values in OmegaConf.to_container(table).items() if name in there}


def read(name: str) -> Spec:
    """The data set `name`.

    Raises:
        UserError: it is not described.
    """
    if name not in specs():
        raise UserError(unknown("data set", name, specs()))
    return specs()[name]


def parse(name: str, values: dict[str, Any]) -> Spec:
    """Make a `Spec` of a YAML entry."""
    files = tuple(part for entry in values["files"] for part in parse_files(entry))
    return Spec(**{**values, "name": name, "tasks": tuple(values["tasks"]), "files": files})


def parse_files(entry: dict[str, Any]) -> list[Part]:
    """The one file of an entry, or all files of its list, each below the entry's URLs and target."""
    if "list" in entry:
        rows = [line.split(maxsplit=1) for line in (FILE.parents[3] / entry["list"]).read_text("utf-8").splitlines()]
        places = [(tuple(url + path for url in entry["urls"]), f"{entry['target']}/{path}") for _, path in rows]
        return [
            Part(urls, target, f"sha256:{checksum}", None, None, {}, listed=True)
            for (urls, target), (checksum, _) in zip(places, rows, strict=True)
        ]
    urls = tuple(url.format(target=entry["target"]) for url in entry["urls"])
    sizes = entry.get("bytes"), entry.get("unpacked")
    return [Part(urls, entry["target"], entry["checksum"], *sizes, entry.get("holds", {}))]


def fetch_dataset(name: str, root: str | Path) -> Path:
    """Download, verify and unpack what is missing of a data set below `root`, and return that folder.

    Archives are kept in the folder that `scripts/download.py --clean` empties only until they are unpacked. Of a
    download that fails, what can be resumed stays, and no empty folder.

    Raises:
        UserError: an unknown data set, one that must not be fetched automatically, no connection, another checksum, an
            archive that is not what was announced, or a disk that cannot be written.
    """
    from src.kit.download import locked, remove_empty_folders_on_failure

    spec, root = read(name), Path(root).expanduser()
    assert spec.access == "open", name
    waiting = cache(partial(print, f"Waiting for another process that is fetching {name}.", flush=True))  # said once
    with remove_empty_folders_on_failure(root), locked(root / name, waiting):
        bring(spec, root)
    return root


def bring(spec: Spec, root: Path) -> None:
    """Fetch and unpack what is missing."""
    from src.kit.download import RemoteFile, cache_folder, extract, fetch_all

    wanted = []
    for part in spec.files:
        if part.unpacked is None:
            wanted.append((part, root / part.target))
        elif part.is_whole(root):
            print(f"{root / part.target} is already there.")
        else:
            wanted.append((part, cache_folder(root) / part.archive))
    for listed in (False, True):
        files = [RemoteFile(p.urls, place, p.checksum, p.bytes) for p, place in wanted if p.listed == listed]
        if listed and files:
            print(f"Fetching or verifying {len(files)} files of {spec.name} in {root}", flush=True)
        fetch_all(files, quiet=listed)
    for part, place in wanted:
        if part.unpacked is not None:
            extract(place, root / part.target, part.unpacked)
            place.unlink()

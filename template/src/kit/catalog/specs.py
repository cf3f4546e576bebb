"""Facts about the known data sets, downloads of their files, and the choice of the one that fits this machine.

The facts are in `src/configs/data/dataset_spec.yaml`, the choice for each tier of machines next to it in
`debug_datasets.yaml` and `production_datasets.yaml`. A subfolder's `dataset_spec.yaml` holds both for its tasks.
"""

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import yaml

from src.kit.config import DATA_TABLES, LOADER, UserError, load_config, option_names, unknown
from src.kit.hardware import Hardware, dataset_tier, detect, facts

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "src" / "configs" / "data"
ACCESS = ("bundled", "made", "open", "login", "own")
CHECKSUM = re.compile(r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}")
STAGES = ("debug", "production")
TIERS = ("debug", "production-conservative", "production-full")


@dataclass(frozen=True)
class PublishedFile:
    """One file to download, and what becomes of it.

    Attributes:
        urls: the publisher's first, then mirrors; only the file's name if it needs a login.
        target: below data.root, a file or the folder that an archive is unpacked into.
        checksum: of the target's content, or of the archive.
        bytes: download size; None if the publisher doesn't state it.
        unpacked: most bytes of an unpacked archive; None if it is no archive.
        holds: files that the unpacked folder must have, and their bytes.
        listed: one of a list, too many to print each.
    """

    urls: tuple[str, ...]
    target: str
    checksum: str
    bytes: int | None
    unpacked: int | None
    holds: Mapping[str, int]
    listed: bool = False

    @property
    def archive(self) -> str:
        """The name of the published file."""
        return self.urls[0].rpartition("/")[2]

    def is_complete(self, root: Path) -> bool:
        """Whether the target exists, as far as names and sizes tell."""
        target = root / self.target
        files = ((target / name, size) for name, size in self.holds.items())
        return target.exists() and all(path.is_file() and path.stat().st_size == size for path, size in files)


@dataclass(frozen=True)
class DatasetSpec:
    """One data set: the keys of `dataset_spec.yaml`, with lists of files expanded."""

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
    files: tuple[PublishedFile, ...]

    def __post_init__(self) -> None:
        assert self.access in ACCESS, (self.name, self.access)
        assert bool(self.files) == (self.access in ("open", "login")), self.name
        for file in self.files:
            assert file.urls, (self.name, file.target)
            assert CHECKSUM.fullmatch(file.checksum), (self.name, file.target, file.checksum)

    def is_complete(self, root: Path) -> bool:
        """Whether all of its files exist below `root`."""
        return all(file.is_complete(root) for file in self.files)


@cache
def dataset_specs() -> dict[str, DatasetSpec]:
    """Return name -> spec of every data set that is described and has a configuration in this project."""
    present = option_names("data")
    return {name: parse_spec(name, values) for name, values in table_entries() if name in present}


def find_spec(name: str) -> DatasetSpec:
    """Return the spec of the data set `name`.

    Raises:
        UserError: there is none.
    """
    if name not in dataset_specs():
        raise UserError(unknown("data set", name, dataset_specs()))
    return dataset_specs()[name]


def table_entries() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name -> values of each data set and each tier, those of the subfolders last; a tier can come repeatedly."""
    paths = [path for name in DATA_TABLES for path in FOLDER.rglob(f"{name}.yaml")]
    for path in sorted(paths, key=lambda path: (len(path.parts), path)):
        yield from yaml.load(path.read_text("utf-8"), LOADER).items()


def parse_spec(name: str, values: dict[str, Any]) -> DatasetSpec:
    """Parse an entry of the YAML file."""
    files = tuple(file for entry in values["files"] for file in parse_files(entry))
    return DatasetSpec(**{**values, "name": name, "tasks": tuple(values["tasks"]), "files": files})


def parse_files(entry: dict[str, Any]) -> list[PublishedFile]:
    """Parse the one file of an entry, or all files of its list, each below the entry's URLs and target."""
    if "list" in entry:
        rows = [line.split(maxsplit=1) for line in (ROOT / entry["list"]).read_text("utf-8").splitlines()]
        return [
            PublishedFile(
                urls=tuple(url + path for url in entry["urls"]),
                target=f"{entry['target']}/{path}",
                checksum=f"sha256:{checksum}",
                bytes=None,
                unpacked=None,
                holds={},
                listed=True,
            )
            for checksum, path in rows
        ]
    urls = tuple(url.format(target=entry["target"]) for url in entry["urls"])
    sizes = entry.get("bytes"), entry.get("unpacked")
    return [PublishedFile(urls, entry["target"], entry["checksum"], *sizes, entry.get("holds", {}))]


def fetch_dataset(name: str, root: str | Path) -> Path:
    """Download, verify and unpack what is missing of a data set below `root`; return that folder.

    Archives are deleted once they are unpacked. If a download fails, resumable parts stay, but no empty folder.

    Raises:
        UserError: an unknown data set, no connection, a wrong checksum, an archive that holds more than announced, or
            a disk that can't be written.
    """
    from src.kit.download import locked, remove_empty_folders_on_failure

    spec, root = find_spec(name), Path(root).expanduser()
    assert spec.access == "open", name
    announce = cache(partial(print, f"Waiting for another process that is fetching {name}.", flush=True))  # once
    writable = os.access(root, os.W_OK) or not root.exists()
    # a folder for several users may be complete and closed to this one: what is missing then raises
    with remove_empty_folders_on_failure(root), locked(root / name, announce) if writable else nullcontext():
        fetch_missing(spec, root)
    return root


def fetch_missing(spec: DatasetSpec, root: Path) -> None:
    """Download and unpack what is missing."""
    from src.kit.download import RemoteFile, cache_folder, extract, fetch_all

    wanted = []
    for file in spec.files:
        if file.unpacked is None:
            wanted.append((file, root / file.target))
        elif file.is_complete(root):
            print(f"{root / file.target} is already there.")
        else:
            wanted.append((file, cache_folder(root) / file.archive))
    for listed in (False, True):
        files = [RemoteFile(f.urls, path, f.checksum, f.bytes) for f, path in wanted if f.listed == listed]
        if listed and files:
            print(f"Fetching or verifying {len(files)} files of {spec.name} in {root}", flush=True)
        fetch_all(files, quiet=listed)
    for file, path in wanted:
        if file.unpacked is not None:
            extract(path, root / file.target, file.unpacked)
            path.unlink()


@dataclass(frozen=True)
class Selection:
    """A data set and the configuration keys that fit this machine.

    Attributes:
        tier: "debug", "production-conservative" or "production-full".
        task: the task that it is for.
        dataset: option of `data=`.
        overrides: dotted key -> value, such as {"data.batch_size": 128}.
        memory_mib: limit of the process's peak memory for one epoch and its evaluation, in MiB.
        minutes: limit of their time. `scripts/quick_validate.py` and `scripts/full_validate.py` check both limits.
        reason: why this tier, to be read after "since".
    """

    tier: str
    task: str
    dataset: str
    overrides: dict[str, Any]
    memory_mib: int
    minutes: int
    reason: str

    @property
    def arguments(self) -> list[str]:
        """The selection as arguments of scripts/train.py: ["data=cifar10", "data.batch_size=128"]."""
        return [f"data={self.dataset}", *(f"{key}={value}" for key, value in self.overrides.items())]


def auto_select_dataset(
    task: str = "classification",
    hardware: Hardware | None = None,
    stage: str | None = None,
    dataset: str | None = None,
) -> Selection:
    """Choose the tier by the memory of the smallest GPU, and the data set by tier and task.

    No GPU, or less than 8 GB: "debug". From 8 to 16 GB: "production-conservative". More: "production-full".

    Args:
        hardware: None detects this machine's.
        stage: "debug" or "production", whatever the machine; production is then conservative if the machine's own tier
            is debug.
        dataset: use this one instead of the tier's; one that the tier doesn't list gets the tier's general overrides.

    Raises:
        UserError: an unknown stage, a task that has no data sets, or a data set for other tasks.
    """
    tier, reason = dataset_tier(hardware or detect())
    if stage is not None:
        tier, reason = force_stage(stage, tier, reason)
    values = tiers()[tier]
    if task not in values["tasks"]:
        raise UserError(unknown("task", task, values["tasks"]))
    choice = values["tasks"][task]
    name = dataset or choice["default"]
    if name in dataset_specs() and task not in dataset_specs()[name].tasks:
        tasks = " and ".join(dataset_specs()[name].tasks)
        raise UserError(f"{name} is for {tasks}, not for {task}: choose another data set, or set task.")
    overrides = {**values["overrides"], **choice["datasets"].get(name, {})}
    return Selection(tier, task, name, overrides, values["memory_mib"], values["minutes"], reason)


def force_stage(stage: str, tier: str, reason: str) -> tuple[str, str]:
    """Return the tier of a requested stage, and the reason."""
    if stage not in STAGES:
        raise UserError(unknown("stage", stage, STAGES))
    if tier.startswith(stage):
        return tier, reason
    other = "debug" if stage == "debug" else "production-conservative"
    return other, f"you asked for {stage}; this machine's own tier is {tier}, since {reason}"


@cache
def tiers() -> dict[str, dict[str, Any]]:
    """Return tier -> its limits, overrides, and the data sets of each task that this project has."""
    merged: dict[str, dict[str, Any]] = {tier: {"tasks": {}} for tier in TIERS}
    present = option_names("task")
    for tier, values in table_entries():
        if tier in TIERS:
            tasks = {task: choice for task, choice in values["tasks"].items() if task in present}
            merged[tier].update({key: value for key, value in values.items() if key != "tasks"})
            merged[tier]["tasks"].update(tasks)
    return merged


def show_info(argv: Sequence[str]) -> None:
    """Print the machine, its tier, and the data sets with their sizes, for the task that `argv` configures."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    hardware = detect()
    selection = auto_select_dataset(load_config(argv).task, hardware)
    console = Console()
    for name, value in facts(hardware):
        console.print(f"{name:<8}{value}", markup=False, highlight=False)
    console.print(f"{'Tier':<8}{selection.tier}, since {selection.reason}", markup=False, highlight=False)
    chosen = shlex.join([*selection.arguments, *argv])
    console.print(f"{'Chosen':<8}{chosen}\n", markup=False, highlight=False, soft_wrap=True)
    table = Table("data=", "tasks", "samples", "download", "there", box=SIMPLE_HEAD, pad_edge=False)
    for number in (2, 3):
        table.columns[number].justify = "right"
    for spec in dataset_specs().values():
        samples = f"{sum(spec.splits.values()):,}" if spec.splits else "yours"
        table.add_row(spec.name, "\n".join(spec.tasks), samples, readable_size(spec.bytes), presence(spec))
    console.print(table)
    console.print(
        "Licences, homepages, sizes and debug twins: src/configs/data/dataset_spec.yaml",
        highlight=False,
        soft_wrap=True,
    )


def presence(spec: DatasetSpec) -> str:
    """Say whether the data set is in the folder of its own configuration."""
    if spec.access == "bundled":
        return "yes"
    data: Any = load_config([f"data={spec.name}"]).data
    root = Path(data.root).expanduser()
    if root.exists() and spec.is_complete(root):
        return "yes"
    return "no (login)" if spec.access == "login" else "no"


def readable_size(count: int) -> str:
    """11594722 -> "12 MB"."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.0f} MB" if count else ""

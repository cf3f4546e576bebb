"""Write a data set as shards, for data that is read over the network or has too many files for the file system:

    python scripts/make_shards.py data=digits --out data/digits-shards
    python scripts/make_shards.py data=image_folder data.root=photos --out shards --shard-size 256MB
    python scripts/train.py data=shards data.root=shards
    python scripts/train.py data=shards data.root=https://example.org/shards data.shard_cache_limit=50GB
    python scripts/train.py data=shards data.root=s3://bucket/shards

OUT gets a folder per split. Image files are stored as they are, images from memory as PNG, the training split in random
order (`seed`). A shard is a tar in WebDataset's layout, which other tools read too. OUT appears when it is complete; an
existing OUT is left alone.
"""

import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.kit.errors import UserError, refuse_url, run_main

SMALLEST = 10_000  # bytes of an empty tar


def main(argv: list[str]) -> None:
    """Write all splits of `cfg.data`."""
    from src.kit.config import help_text, load_config, option

    if "--help" in argv or "-h" in argv:
        sys.stdout.write(f"{__doc__}\n{help_text()}")
        return
    argv, out, size = take_options(argv)
    cfg = load_config(argv)
    temporary = out.with_name(f".{out.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)  # left by a run that was killed
    try:
        write_splits(cfg, temporary, size)
        os.replace(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    keys = ["image_size", "mean", "std", "augment"]
    keys += [key for key in ("bands", "background") if cfg.data[key] != option("data", "shards")[key]]
    same = " ".join(shlex.quote(f"data.{key}={cfg.data[key]}") for key in keys)
    print(f"Train on them with: python scripts/train.py data=shards {shlex.quote(f'data.root={out}')} {same}")


def take_options(argv: list[str]) -> tuple[list[str], Path, int]:
    """Separate `--out FOLDER` and `--shard-size SIZE` from the overrides."""
    from src.kit.shards import parse_size

    options = {"--out": "", "--shard-size": "256MB"}
    rest = list(argv)
    for name in options:
        if name in rest:
            index = rest.index(name)
            options[name] = rest[index + 1] if index + 1 < len(rest) else ""
            del rest[index : index + 2]
    if not options["--out"]:
        raise UserError("--out needs the folder to write, such as --out data/shards.")
    refuse_url(options["--out"], "--out=")
    out = Path(options["--out"]).expanduser()
    if out.exists():
        raise UserError(f"{out} exists already: choose another folder for --out, or delete it.")
    size = parse_size(options["--shard-size"], "--shard-size")
    if size < SMALLEST:
        raise UserError(f"--shard-size {options['--shard-size']} is less than an empty shard's {SMALLEST:,} bytes.")
    return rest, out, size


def write_splits(cfg: Any, folder: Path, size: int) -> None:
    """Write each split to its own folder."""
    import numpy as np

    from src.kit.catalog import SPLITS, build_dataset
    from src.kit.loading import Split
    from src.kit.shards import write_shards

    for name in SPLITS:
        split = build_dataset(cfg, name)
        if split.content != Split.content:
            raise UserError(f"data={cfg.data.name} holds {split.content}, and shards hold {Split.content}.")
        order = np.arange(len(split))
        if name == "train":  # images of a class, often neighbours in their folder, must not be neighbours here
            order = np.random.default_rng(cfg.seed).permutation(order)
        with progress(name, len(split)) as advance:
            index = write_shards(split, name, folder / name, size, order, advance)
        total = sum(shard.bytes for shard in index.shards)
        count = len(index.shards)
        print(f"{name}: {len(split):,} samples, {count} shard{'s' * (count != 1)}, {total / 1e6:.1f} MB")


@contextmanager
def progress(name: str, total: int) -> Iterator[Callable[[], None]]:
    """Show a progress bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=total)
        yield lambda: bar.advance(task)


if __name__ == "__main__":
    run_main(main)

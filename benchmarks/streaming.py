"""Measure shards: peak memory of an epoch of a million samples, and images/s next to plain files, in one run.

    python ../benchmarks/streaming.py PHOTOS        # in the folder of a project; prints Markdown, about 6 minutes

PHOTOS is a folder of class folders, ideally of some hundred photos. The million samples take 2 GB of disk temporarily.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

sys.path.insert(0, str(Path.cwd()))

import numpy as np

from src.kit.catalog import build_dataset
from src.kit.config import load_config
from src.kit.loading import ArrayImages, FileImages, Loader, Split
from src.kit.shards.read import ShardFolder, ShardImages, write_shards

SAMPLES = 1_000_000
LATENCY_S = 0.05  # added to each answer of the server
ROUNDS = 5


def main(argv: list[str]) -> None:
    """Print both tables; `--epoch` is the process whose memory is measured, `--serve` the server."""
    if argv[0] == "--epoch":
        read_epoch(Path(argv[1]))
        return
    if argv[0] == "--serve":
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Slow, directory=argv[1]))
        print(server.server_address[1], flush=True)
        server.serve_forever()
    with tempfile.TemporaryDirectory() as folder:
        print("\n".join(memory(Path(folder))), flush=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # threads may still be fetching
        print("\n".join(["", *throughput(Path(argv[0]), Path(folder))]))


def memory(folder: Path) -> list[str]:
    """Peak resident memory of a process that reads every sample once, everything included."""
    numbers = np.arange(SAMPLES)
    pixels = np.stack([numbers >> 16, numbers >> 8 & 255, numbers & 255], 1).astype(np.uint8)[:, None, None]
    split = Split(ArrayImages(pixels), numbers % 10, tuple("0123456789"))
    write_shards(split, "train", folder / "train", 256_000_000, numbers, lambda: None)
    shards = list((folder / "train").glob("*.tar"))
    command = [sys.executable, __file__, "--epoch", str(folder / "train")]
    peak, took = map(float, subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split())
    size = sum(path.stat().st_size for path in shards)
    return [
        "| samples | shards | on disk | peak memory of an epoch | time |",
        "|---:|---:|---:|---:|---:|",
        f"| {SAMPLES:,} | {len(shards)} | {size / 1e9:.1f} GB | {peak / 1e6:.0f} MB | {took:.0f} s |",
    ]


def read_epoch(folder: Path) -> None:
    """Read a shuffled epoch, check that every sample came once, and print peak memory in bytes and seconds."""
    images = ShardImages(ShardFolder(folder), 1)
    split = Split(images, images.targets(), images.source.index.classes)
    seen = np.zeros(len(split), np.uint8)
    begin = time.perf_counter()
    for pixels, _ in Loader(split, 500, [0.0] * 3, [1 / 255] * 3, shuffle=True, num_workers=2):
        seen[np.rint(pixels[:, :, 0, 0]).astype(int) @ [65536, 256, 1]] += 1
    assert (seen == 1).all(), "every sample once"
    peak = next(line for line in Path("/proc/self/status").read_text("utf-8").splitlines() if line.startswith("VmHWM"))
    print(int(peak.split()[1]) * 1024, time.perf_counter() - begin)


def throughput(photos: Path, folder: Path) -> list[str]:
    """Images at 224 x 224 from files, shards and a server, in turns; the medians of the rounds' ratios."""
    files = build_dataset(load_config(["data=image_folder", f"data.root={photos.resolve().as_posix()}"]), "train")
    assert isinstance(files.images, FileImages)
    order = np.random.default_rng(0).permutation(len(files))
    size = sum(path.stat().st_size for path in files.images.paths)
    write_shards(files, "train", folder / "train", size // 16, order, lambda: None)
    local = build_dataset(load_config(["data=shards", f"data.root={folder.as_posix()}"]), "train")
    paths = [*files.images.paths, *(folder / "train").glob("*.tar")]
    with serve(folder) as url:
        rows: dict[str, tuple[Callable[[Path], Split], bool]] = {
            "plain files": (lambda _: files, False),
            "shards": (lambda _: local, False),
            "plain files, not in memory": (lambda _: files, True),
            "shards, not in memory": (lambda _: local, True),
            f"shards over HTTP, {LATENCY_S * 1000:.0f} ms away, none fetched yet": (partial(remote, url), False),
        }
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in rows}
        for number in range(ROUNDS):
            for name, (load, cold) in rows.items():
                split = load(folder / f"cache-{number}")
                if cold:
                    forget(paths)
                times[name].append(epoch_times(split, number))
    table = [
        f"| {len(files)} photos, {size / 1e6:.0f} MB, read from | images/s | of the plain files' | CPU time / plain |",
        "|---|---:|---:|---:|",
    ]
    base = np.array(times["plain files"])
    for name, took in times.items():
        speed, cpu = np.median(base[:, 0] / np.array(took)[:, 0]), np.median(np.array(took)[:, 1] / base[:, 1])
        table.append(f"| {name} | {len(files) / min(took)[0]:.0f} | {speed:.2f} | {cpu:.2f} |")
    return table


def epoch_times(split: Split, number: int) -> tuple[float, float]:
    """Seconds for a shuffled epoch, and seconds of all its threads together."""
    loader = Loader(split, 32, [0.5] * 3, [0.25] * 3, shuffle=True)
    loader.set_epoch(number)
    begin = time.perf_counter(), time.process_time()
    count = sum(len(targets) for _, targets in loader)
    assert count == len(split)
    return time.perf_counter() - begin[0], time.process_time() - begin[1]


def remote(url: str, cache: Path) -> Split:
    """The shards behind a URL, with an empty cache."""
    split: Split = build_dataset(
        load_config(["data=shards", f"data.root={url}", f"data.shard_cache={cache.as_posix()}"]), "train"
    )
    return split


def forget(paths: list[Path]) -> None:
    """Drop files from the operating system's cache, so that the disk is read."""
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve a folder from a process of its own; yields the URL."""
    os.environ["no_proxy"] = "127.0.0.1"
    process = subprocess.Popen(
        [sys.executable, __file__, "--serve", str(folder)], stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert process.stdout
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.terminate()
        process.wait()


class Slow(SimpleHTTPRequestHandler):
    """Answers after `LATENCY_S`."""

    def do_GET(self) -> None:
        time.sleep(LATENCY_S)
        super().do_GET()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


if __name__ == "__main__":
    main(sys.argv[1:])

"""Measure shards: peak memory of an epoch of a million samples, images/s next to plain files, and readers of a bucket.

    python ../benchmarks/streaming.py PHOTOS        # in the folder of a project; prints Markdown, about 6 minutes
    python ../benchmarks/streaming.py PHOTOS --readers                                  # the bucket's readers alone

PHOTOS is a folder of class folders, ideally of some hundred photos. The million samples take 2 GB of disk temporarily.
"""

import os
import re
import shutil
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
READERS = (1, 2, 4, 8)


def main(argv: list[str]) -> None:
    """Print the tables; `--epoch` is the process whose memory is measured, `--read` a reader, `--serve` the server."""
    if argv[0] == "--epoch":
        read_epoch(Path(argv[1]))
        return
    if argv[0] == "--serve":
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Slow, directory=argv[1]))
        print(server.server_address[1], flush=True)
        server.serve_forever()
    if argv[0] == "--read":
        read_all(*argv[1:])
        return
    if "--readers" in argv:
        with tempfile.TemporaryDirectory() as folder:
            print("\n".join(readers(Path(argv[0]), Path(folder))))
        return
    with tempfile.TemporaryDirectory() as folder:
        print("\n".join(memory(Path(folder))), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        print("\n".join(["", *readers(Path(argv[0]), Path(folder))]), flush=True)
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


def readers(photos: Path, folder: Path) -> list[str]:
    """MB/s of several processes together, each of which fetches and checks all shards, into a cache of its own."""
    files = build_dataset(load_config(["data=image_folder", f"data.root={photos.resolve().as_posix()}"]), "train")
    size = sum(path.stat().st_size for path in files.images.paths)
    write_shards(files, "train", folder / "shards" / "train", size // 16, np.arange(len(files)), lambda: None)
    rates: dict[tuple[str, int], list[float]] = {}
    with serve(folder) as url:
        keys = {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}
        for number in range(ROUNDS):
            for count in READERS:
                for root in (f"{url}/shards", "s3://shards"):
                    caches = [folder / f"{root[:4]}-{number}-{count}-{reader}" for reader in range(count)]
                    took = read_together(root, caches, {**os.environ, **keys, "DATASET_MIRROR": ""})
                    rates.setdefault((root[:2], count), []).append(count * size / took / 1e6)
    shards = f"{size / 1e6:.0f} MB of shards, {LATENCY_S * 1000:.0f} ms away"
    table = [
        f"| {shards} | HTTP | of one reader's | s3:// | of one's |",
        "|---|---:|---:|---:|---:|",
    ]
    for count in READERS:
        cells = []
        for kind in ("ht", "s3"):
            ratios = np.array(rates[kind, count]) / np.array(rates[kind, 1])
            cells += [f"{np.median(rates[kind, count]):.0f} MB/s", f"{np.median(ratios):.2f}"]
        table.append(f"| {count} reader{'s' * (count > 1)} | {' | '.join(cells)} |")
    return table


def read_together(root: str, caches: list[Path], environment: dict[str, str]) -> float:
    """Seconds until the last of the readers, which begin together, has read everything."""
    command = [sys.executable, __file__, "--read", root]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    started = [subprocess.Popen([*command, str(cache)], env=environment, **pipes) for cache in caches]
    assert all(reader.stdout.readline() == "ready\n" for reader in started)
    begin = time.perf_counter()
    for reader in started:
        reader.stdin.write("go\n")
        reader.stdin.flush()
    assert not any(reader.wait() for reader in started)
    took = time.perf_counter() - begin
    for cache in caches:
        shutil.rmtree(cache)
    return took


def read_all(root: str, cache: str) -> None:
    """Be a reader: open the shards, wait for a word, and read all files in an epoch's order without decoding them."""
    images = remote(root, Path(cache)).images
    order = images.epoch_order(np.random.default_rng(0))
    print("ready", flush=True)
    sys.stdin.readline()
    images.expect(order)
    found = sum(1 for start in range(0, len(order), 64) for _ in images.read_files(order[start : start + 64]))
    assert found == len(images)


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

    protocol_version = "HTTP/1.1"  # connections are kept

    def do_GET(self) -> None:
        time.sleep(LATENCY_S)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if not wanted:
            super().do_GET()
            return
        first, last = map(int, wanted.groups())
        with open(self.translate_path(self.path), "rb") as file:
            file.seek(first)
            content = file.read(last + 1 - first)
            size = os.fstat(file.fileno()).st_size
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{first + len(content) - 1}/{size}")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


if __name__ == "__main__":
    main(sys.argv[1:])

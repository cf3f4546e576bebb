"""Downloads that are killed, at any byte: the next run goes on from there."""

import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fault_server import FaultServer, serving
from paths import TEMPLATE
from src.kit.download import cache_folder

CONTENT = random.Random(0).randbytes(400_000).replace(b"\0", b"\1")  # so a zero is a byte that is not there yet
CHECKSUM = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
CHUNK = 10_000

# downloads with small chunks, and kills itself when it has `left` bytes more: within the writing of a chunk, or between
# that and the note that it is there
CHILD = """
import os, signal, sys
from pathlib import Path
from src.kit.download import fetch, transfer

url, target, checksum, left, transfer.MIN_SEGMENT, transfer.CHUNK = *sys.argv[1:4], *map(int, sys.argv[4:])
append = transfer.Journal.append

def fatal(self, number, file, chunk):
    global left
    assert len(chunk) <= transfer.CHUNK  # all that a connection has in hand
    left -= len(chunk)
    if left <= 0:
        file.write(chunk[: left or None])
        os.kill(os.getpid(), signal.SIGKILL)
    append(self, number, file, chunk)

transfer.Journal.append = fatal
fetch(url, Path(target), checksum)
"""


PLAIN_CHILD = """
import signal, sys
from pathlib import Path
from src.kit.download import fetch

signal.signal(signal.SIGINT, signal.default_int_handler)  # which background jobs of a shell ignore
fetch(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
"""


def run(server: FaultServer, target: Path, left: int, min_segment: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CHILD, f"{server.url}/file.bin", str(target), CHECKSUM]
    environment = os.environ | {"no_proxy": "127.0.0.1", "DATASET_MIRROR": "", "PYTHONPATH": str(TEMPLATE)}
    numbers = [str(number) for number in (left, min_segment, CHUNK)]
    return subprocess.run([*command, *numbers], env=environment, capture_output=True, text=True, timeout=60)


def on_disk(part: Path) -> int:
    """Bytes of the file that are at their place already."""
    there = part.read_bytes() if part.exists() else b""
    return sum(byte == right for byte, right in zip(there, CONTENT, strict=False))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no SIGKILL")
@pytest.mark.parametrize(("min_segment", "connections"), [(1 << 20, 1), (40_000, 8)])
def test_a_killed_download_receives_at_most_one_chunk_again(tmp_path, min_segment, connections):
    rng, target, kills = random.Random(min_segment), tmp_path / "file.bin", 0
    with serving({"file.bin": CONTENT}) as server:
        server.rate = 400_000 / connections**0.5
        while True:
            before = len(server.asked)
            missing = len(CONTENT) - on_disk(cache_folder(tmp_path) / "file.bin.part")
            killed = run(server, target, rng.randrange(1, 120_000) if kills < 8 else 10**9, min_segment)
            # what was written before the kill isn't asked for again, but for each connection's last chunk
            assert not kills or requested(server, before) - missing <= connections * CHUNK
            if killed.returncode == 0:
                break
            assert killed.returncode == -signal.SIGKILL, killed.stderr
            assert not target.exists()
            kills += 1
    assert kills >= 3
    assert target.read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["file.bin"]
    # no limit to this: it counts what lay in the system's buffers too, and on a busy machine that is a lot
    again = sum(asked.sent for asked in server.asked) - len(CONTENT)
    print(f"{kills} kills, {connections} connections: {again} bytes of {len(CONTENT)} were sent again")


def requested(server: FaultServer, since: int) -> int:
    """Bytes in the ranges that were asked for."""
    ranges = [map(int, re.findall(r"\d+", asked.range)) for asked in server.asked[since:]]
    return len({byte for first, last in ranges for byte in range(first, last + 1)})


def test_two_processes_fetch_a_file_once(tmp_path):
    target = tmp_path / "file.bin"
    environment = os.environ | {"no_proxy": "127.0.0.1", "DATASET_MIRROR": "", "PYTHONPATH": str(TEMPLATE)}
    with serving({"file.bin": CONTENT}) as server:
        server.rate = 400_000
        command = [sys.executable, "-c", PLAIN_CHILD, f"{server.url}/file.bin", str(target), CHECKSUM]
        both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        said = "".join(process.communicate(timeout=60)[0] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert len(server.asked) == 1
    assert (
        said.count("Downloading ") == said.count("is already there") == said.count("Waiting for another process") == 1
    )
    assert [path.name for path in tmp_path.iterdir()] == ["file.bin"]


@pytest.mark.skipif(os.name == "nt", reason="needs a signal that Windows cannot send to one process")
def test_ctrl_c_ends_a_download_soon_and_keeps_what_is_there(tmp_path):
    environment = os.environ | {"no_proxy": "127.0.0.1", "DATASET_MIRROR": "", "PYTHONPATH": str(TEMPLATE)}
    part = cache_folder(tmp_path) / "file.bin.part"
    with serving({"file.bin": CONTENT}) as server:
        server.rate = 5_000
        command = [sys.executable, "-c", PLAIN_CHILD, f"{server.url}/file.bin", str(tmp_path / "file.bin"), CHECKSUM]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not part.exists() or part.stat().st_size < 1000:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) != 0  # the whole file takes 80 s
    assert part.stat().st_size >= 1000

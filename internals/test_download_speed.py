"""Parallel segments and several files at once, on a server that gives each connection only so much a second."""

import hashlib
import random
import time
from pathlib import Path
from urllib.request import urlopen

import pytest

from fault_server import serving
from src.kit.download import RemoteFile, fetch, fetch_all, transfer

CONTENT = random.Random(0).randbytes(1_000_000)
CHECKSUM = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("DATASET_MIRROR", raising=False)
    with serving({"file.bin": CONTENT}) as server:
        server.rate = 400_000
        yield server


def seconds(function, *arguments) -> float:
    began = time.monotonic()
    function(*arguments)
    return time.monotonic() - began


def test_segments_are_three_times_faster_than_one_stream(server, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "MIN_SEGMENT", 100_000)
    url = f"{server.url}/file.bin"
    one = seconds(lambda: urlopen(url).read())
    several = seconds(fetch, url, tmp_path / "file.bin", CHECKSUM)
    print(f"one stream {one:.2f} s, {transfer.CONNECTIONS} segments {several:.2f} s: {one / several:.1f} times faster")
    assert one >= 3 * several


def test_several_files_come_at_once(server, tmp_path):
    def wanted(folder: Path, count: int) -> list[RemoteFile]:
        return [RemoteFile(f"{server.url}/file.bin", folder / f"{number}", CHECKSUM) for number in range(count)]

    server.rate = 1_000_000
    one = seconds(fetch_all, wanted(tmp_path / "one", 1))
    four = seconds(fetch_all, wanted(tmp_path / "four", 4))
    print(f"one file {one:.2f} s, four {four:.2f} s")
    assert four < 2.5 * one

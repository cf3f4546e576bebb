"""Downloads from a server on loopback that cuts, lies and fails, and the real MNIST where its files are at hand."""

import gzip
import hashlib
import os
import re
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from src.datasets import cifar10, mnist
from src.utils import transfer
from src.utils.download import fetch
from src.utils.errors import UserError

PROJECT = Path(__file__).parents[2]
CONTENT = bytes(range(256)) * 4000
DAMAGED = b"\1" + CONTENT[1:]


def md5(content: bytes) -> str:
    return "md5:" + hashlib.md5(content, usedforsecurity=False).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `content` under every path, misbehaving as its attributes say, and remembers the Range of each request."""

    daemon_threads = True
    content = CONTENT
    cut: int | None = None  # bytes after which the connection breaks
    cuts = 0  # how many more answers are cut
    failures: tuple[int, ...] = ()  # statuses of the first answers
    ranges = "yes"  # "no": always sends the whole file; "wrong": sends another range than asked for
    url = ""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        asked = self.headers.get("Range")
        server.asked.append(asked)
        if server.failures:
            status, *rest = server.failures
            server.failures = tuple(rest)
            self.send_error(status)
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and server.ranges != "no" else 0
        if start >= len(server.content):
            self.send_error(416)
            return
        body = server.content if server.ranges == "wrong" else server.content[start:]
        self.send_response(206 if start else 200)
        if start:
            said = 0 if server.ranges == "wrong" else start
            self.send_header("Content-Range", f"bytes {said}-{len(server.content) - 1}/{len(server.content)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if server.cuts:
            server.cuts -= 1
            body = body[: server.cut]
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def running(server: ThreadingHTTPServer) -> Iterator[str]:
    """Serve in a thread; gives the base URL."""
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.01))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(transfer, "BACKOFF_S", 0.001)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("DATASET_MIRROR", raising=False)


@pytest.fixture
def server():
    server = Server()
    with running(server) as server.url:
        yield server


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_file_is_fetched_once(server, tmp_path, capsys):
    target = tmp_path / "new" / "file.bin"
    for _ in range(2):
        assert fetch(f"{server.url}/file.bin", target, md5(CONTENT)) == target
    assert target.read_bytes() == CONTENT
    assert server.asked == [None]
    assert names(tmp_path) == ["file.bin"]
    assert re.search(r"Downloading \S+/file.bin \(1.0 MB\)\n.*file.bin is already there", capsys.readouterr().out)


def test_a_damaged_file_is_fetched_again(server, tmp_path):
    target = tmp_path / "file.bin"
    target.write_bytes(DAMAGED)
    sha256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
    assert fetch(f"{server.url}/file.bin", target, sha256).read_bytes() == CONTENT


def test_a_cut_connection_is_resumed_where_it_broke(server, tmp_path):
    server.cut, server.cuts = 150_000, 6  # more often than it tries in vain
    assert fetch(f"{server.url}/file.bin", tmp_path / "file.bin", md5(CONTENT)).read_bytes() == CONTENT
    assert server.asked == [None, *(f"bytes={150_000 * cut}-" for cut in range(1, 7))]


def test_what_an_earlier_run_left_is_resumed(server, tmp_path):
    server.cut, server.cuts = 0, 99
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:1000])
    with pytest.raises(UserError, match=r"Cannot download .*/file.bin \(.+\): check the network or set DATASET_MIRROR"):
        fetch(f"{server.url}/file.bin", tmp_path / "file.bin", md5(CONTENT))
    assert len(server.asked) == transfer.ATTEMPTS
    assert names(tmp_path) == ["file.bin.part"]
    server.cuts = 0
    fetch(f"{server.url}/file.bin", tmp_path / "file.bin", md5(CONTENT))
    assert server.asked[-1] == "bytes=1000-"
    assert names(tmp_path) == ["file.bin"]


@pytest.mark.parametrize("ranges", ["no", "wrong"])
def test_a_server_without_proper_ranges_is_asked_for_the_whole(server, tmp_path, ranges):
    server.cut, server.cuts, server.ranges = 300_000, 1, ranges
    assert fetch(f"{server.url}/file.bin", tmp_path / "file.bin", md5(CONTENT)).read_bytes() == CONTENT


@pytest.mark.parametrize("left", [DAMAGED[:5000], DAMAGED, CONTENT, CONTENT + b"more"])
def test_a_part_of_another_file_or_a_whole_one_ends_well(server, tmp_path, left):
    (tmp_path / "file.bin.part").write_bytes(left)
    assert fetch(f"{server.url}/file.bin", tmp_path / "file.bin", md5(CONTENT)).read_bytes() == CONTENT
    assert names(tmp_path) == ["file.bin"]


def test_wrong_content_is_refused_and_removed(server, tmp_path):
    target = tmp_path / "file.bin"
    target.write_bytes(b"as it was")
    server.content = DAMAGED
    with pytest.raises(UserError, match="has another content than its publisher's"):
        fetch(f"{server.url}/file.bin", target, md5(CONTENT))
    assert target.read_bytes() == b"as it was"
    assert names(tmp_path) == ["file.bin"]


def test_a_busy_server_is_asked_again(server, tmp_path):
    server.failures = (503, 429, 500)
    assert fetch(f"{server.url}/file.bin", tmp_path / "file.bin", md5(CONTENT)).read_bytes() == CONTENT


@pytest.mark.parametrize("status", [404, 403])
def test_a_missing_file_is_asked_for_once(server, tmp_path, status):
    server.failures = (status,)
    with pytest.raises(UserError, match=f"/file.bin answered {status} .*set DATASET_MIRROR"):
        fetch(f"{server.url}/file.bin", tmp_path / "file.bin", md5(CONTENT))
    assert len(server.asked) == 1
    assert names(tmp_path) == []


def test_no_connection_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"Cannot download http://127.0.0.1:9/file.bin \(.*refused.*\)"):
        fetch("http://127.0.0.1:9/file.bin", tmp_path / "file.bin", md5(CONTENT))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a Linux device that is always full")
def test_a_full_disk_is_one_sentence(server, tmp_path):
    (tmp_path / "file.bin.part").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"Cannot write .*file.bin: No space left on device; free some space"):
        fetch(f"{server.url}/file.bin", tmp_path / "file.bin", md5(CONTENT))
    assert names(tmp_path) == []


def test_a_target_that_cannot_be_written_is_one_sentence(server, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UserError, match=r"Cannot write .*; free some space or set data.root"):
        fetch(f"{server.url}/file.bin", tmp_path / "file" / "file.bin", md5(CONTENT))


def test_a_packed_file_is_verified_by_its_content(server, tmp_path):
    server.content = gzip.compress(CONTENT, compresslevel=1)  # not as the publisher packed it
    assert fetch(f"{server.url}/file.gz", tmp_path / "file", md5(CONTENT)).read_bytes() == CONTENT
    server.content = b"<html>log in first</html>"
    with pytest.raises(UserError, match=r"another content than its publisher's \(damaged: Not a gzipped file"):
        fetch(f"{server.url}/file.gz", tmp_path / "other", md5(CONTENT))
    assert names(tmp_path) == ["file"]
    server.content = gzip.compress(CONTENT, compresslevel=1)
    (tmp_path / "file.gz.part").write_bytes(b"of another file")
    fetch(f"{server.url}/file.gz", tmp_path / "other", md5(CONTENT))
    assert names(tmp_path) == ["file", "other"]


def test_the_mirror_may_be_a_url_or_a_folder(server, tmp_path, monkeypatch):
    monkeypatch.setenv("DATASET_MIRROR", f"{server.url}/deep/")
    fetch("https://publisher.invalid/a/file.bin", tmp_path / "one", md5(CONTENT))
    (tmp_path / "mirror").mkdir()
    monkeypatch.setenv("DATASET_MIRROR", str(tmp_path / "mirror"))
    with pytest.raises(
        UserError, match=r"mirror has no file file.bin: copy it there from https://publisher.invalid/a/file.bin"
    ):
        fetch("https://publisher.invalid/a/file.bin", tmp_path / "two", md5(CONTENT))
    (tmp_path / "mirror" / "file.bin").write_bytes(CONTENT)
    fetch("https://publisher.invalid/a/file.bin", tmp_path / "two", md5(CONTENT))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes() == CONTENT
    assert names(tmp_path / "mirror") == ["file.bin"]


def test_cifar10_is_fetched_unpacked_and_then_already_there(tmp_path, monkeypatch, capsys):
    source = tmp_path / "source" / cifar10.FOLDER
    source.mkdir(parents=True)
    for name in (*cifar10.FILES["train"], *cifar10.FILES["test"]):
        (source / name).write_bytes(bytes(10_000 * cifar10.RECORD))
    archive = tmp_path / "source" / "cifar-10-binary.tar.gz"
    with tarfile.open(archive, "w:gz", compresslevel=1) as packed:
        packed.add(source, cifar10.FOLDER)
    monkeypatch.setattr(cifar10, "CHECKSUM", md5(archive.read_bytes()))
    monkeypatch.setenv("DATASET_MIRROR", str(archive.parent))
    data = OmegaConf.create({"root": str(tmp_path / "cifar"), "image_size": 32, "val_fraction": 0.1})
    assert cifar10.download(data) == tmp_path / "cifar"
    assert [path.name for path in (tmp_path / "cifar").iterdir()] == [cifar10.FOLDER]
    assert len(cifar10.load(data, "test", seed=0)) == 10_000
    monkeypatch.delenv("DATASET_MIRROR")
    cifar10.download(data)
    assert "is already there" in capsys.readouterr().out


class Files(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


def test_the_script_downloads_the_real_mnist(tmp_path):
    folder = os.environ.get("TEST_DATA_DIR")
    if not folder or not Path(folder, "train-images-idx3-ubyte.gz").is_file():
        pytest.skip("TEST_DATA_DIR names no folder with MNIST's four .gz files")
    command = [sys.executable, "scripts/download.py", "data=mnist", f"data.root={(tmp_path / 'mnist').as_posix()}"]
    with running(ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=folder))) as url:
        environment = os.environ | {"DATASET_MIRROR": url}
        first, second = (
            subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True) for _ in range(2)
        )
    assert (first.returncode, first.stderr, second.returncode) == (0, "", 0)
    assert f"mnist is in {tmp_path / 'mnist'}" in first.stdout
    assert second.stdout.count("is already there") == 4
    assert names(tmp_path) == sorted(mnist.FILES)
    data = OmegaConf.create({"root": str(tmp_path / "mnist"), "image_size": 28, "val_fraction": 0.1})
    sizes = [len(mnist.load(data, split, seed=0)) for split in ("train", "val", "test")]
    assert sizes == [54_001, 5_999, 10_000]


@pytest.mark.parametrize("name", ["digits", "image_folder"])
def test_the_script_says_when_nothing_is_to_be_fetched(name):
    command = [sys.executable, "scripts/download.py", f"data={name}"]
    result = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, f"{name} needs no download.\n")

"""Downloads from a server on loopback that cuts, lies and fails, and real files where they are at hand."""

import gzip
import hashlib
import io
import os
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest

from fault_server import serving
from src.kit.download import (
    RemoteFile,
    cache_folder,
    clean,
    connection,
    extract,
    fetch,
    fetch_all,
    fetching,
    files,
    locked,
    transfer,
)
from src.kit.errors import UserError

CONTENT = bytes(range(256)) * 4000
DAMAGED = b"\1" + CONTENT[1:]


def md5(content: bytes) -> str:
    return "md5:" + hashlib.md5(content, usedforsecurity=False).hexdigest()


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(connection, "BACKOFF_S", 0.001)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("DATASET_MIRROR", raising=False)


@pytest.fixture
def server():
    with serving({"file.bin": CONTENT}) as server:
        yield server


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def first(*faults: str | None):
    """The faults of the first answers, in turn; those after them are good."""
    left = list(faults)
    return lambda asked, rng: left.pop(0) if left else None


def get(server, target: Path, **options) -> Path:
    return fetch(f"{server.url}/file.bin", target, md5(CONTENT), **options)


def test_a_file_is_fetched_once_in_one_request(server, tmp_path, capsys):
    target = tmp_path / "new" / "file.bin"
    for _ in range(2):
        assert get(server, target) == target
    assert target.read_bytes() == CONTENT
    assert len(server.asked) == 1
    assert [path.name for path in tmp_path.rglob("*")] == ["new", "file.bin"]
    assert re.fullmatch(r"Downloading \S+/file.bin \(1.0 MB\)\n.*file.bin is already there.\n", capsys.readouterr().out)


def test_quiet_says_nothing(server, tmp_path, capsys):
    get(server, tmp_path / "file.bin", quiet=True)
    assert capsys.readouterr() == ("", "")


def test_a_damaged_file_is_fetched_again(server, tmp_path):
    target = tmp_path / "file.bin"
    target.write_bytes(DAMAGED)
    sha256 = "SHA256:" + hashlib.sha256(CONTENT).hexdigest()
    assert fetch(f"{server.url}/file.bin", target, sha256).read_bytes() == CONTENT


@pytest.mark.parametrize("checksum", ["", "md5:", "md5:abc", "crc32:00000000", "sha256:" + "g" * 64])
def test_there_is_no_download_without_a_checksum(server, tmp_path, checksum):
    with pytest.raises(UserError, match="is no checksum: write sha256:"):
        fetch(f"{server.url}/file.bin", tmp_path / "file.bin", checksum)
    assert server.asked == []


def test_a_large_file_comes_in_segments(server, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "MIN_SEGMENT", 100_000)
    assert get(server, tmp_path / "file.bin").read_bytes() == CONTENT
    asked = sorted(tuple(map(int, re.findall(r"\d+", asked.range))) for asked in server.asked)
    assert len(asked) == transfer.CONNECTIONS
    assert asked[0] == (0, 99_999)
    assert [start for start, _ in asked[1:]] == [stop + 1 for _, stop in asked[:-1]]
    assert sum(asked.sent for asked in server.asked) == len(CONTENT)


@pytest.mark.parametrize("total", [0, 1, 4 << 20, (4 << 20) + 1, 10**8, 10**10])
def test_segments_cover_the_file_once(total):
    bounds = transfer.plan_segments(total)
    assert bounds[0][0] == 0 and bounds[-1][1] == total
    assert all(before[1] == after[0] for before, after in pairwise(bounds))
    assert all(stop - start <= transfer.MAX_SEGMENT for start, stop in bounds)


def test_a_cut_connection_is_resumed_where_it_broke(server, tmp_path):
    server.fault = first("cut", "reset", "cut")
    assert get(server, tmp_path / "file.bin").read_bytes() == CONTENT
    for before, after in pairwise(server.asked):
        start, previous = (int(re.search(r"\d+", asked.range)[0]) for asked in (after, before))
        assert start == previous + before.sent or before.fault == "reset"  # which takes bytes with it
    assert len(server.asked) == 4


def test_what_an_earlier_run_left_is_resumed(server, tmp_path, capsys):
    server.fault = first(*["cut"] * connection.ATTEMPTS)
    server.files["file.bin"] = CONTENT[:50_000]  # too few new bytes to count as progress
    content = CONTENT[:50_000]
    with pytest.raises(UserError, match=r"Cannot download file.bin: http://.*/file.bin \(the connection broke after"):
        fetch(f"{server.url}/file.bin", tmp_path / "file.bin", md5(content))
    assert len(server.asked) == connection.ATTEMPTS
    assert names(tmp_path) == [".downloads/file.bin.part", ".downloads/file.bin.state"]
    capsys.readouterr()
    fetch(f"{server.url}/file.bin", tmp_path / "file.bin", md5(content))
    assert re.match(r"Downloading \S+ \(0.1 MB, 0.0 MB of it already here\)", capsys.readouterr().out)
    assert sum(asked.sent for asked in server.asked) == len(content)
    assert names(tmp_path) == ["file.bin"]


@pytest.mark.parametrize(("etags", "fault"), [(True, None), (True, "ignore if-range"), (False, None)])
def test_a_file_that_changed_between_two_runs_is_begun_anew(server, tmp_path, etags, fault):
    old = CONTENT[:50_000]
    server.etags, server.files["file.bin"] = etags, old
    server.fault = first(*["cut"] * connection.ATTEMPTS)
    with pytest.raises(UserError):
        fetch(f"{server.url}/file.bin", tmp_path / "file.bin", md5(old))
    server.asked.clear()
    server.fault = lambda asked, rng: fault
    server.files["file.bin"] = new = old[::-1]
    fetch(f"{server.url}/file.bin", tmp_path / "file.bin", md5(new))
    assert (tmp_path / "file.bin").read_bytes() == new
    resumed, *anew = server.asked
    assert not resumed.range.startswith("bytes=0-")
    assert bool(resumed.if_range) == etags
    # with ETags the first answer tells; without them the checksum does, and then the file is asked for without ranges
    assert [asked.range for asked in anew] == ([f"bytes=0-{transfer.MIN_SEGMENT - 1}"] if etags else [None])


@pytest.mark.parametrize("fault", ["ignore range", "wrong range", "false range", "wrong total", "no length"])
def test_a_server_that_lies_about_ranges_is_asked_for_the_whole(server, tmp_path, monkeypatch, fault):
    monkeypatch.setattr(transfer, "MIN_SEGMENT", 100_000)
    server.fault = lambda asked, rng: fault if asked.range else None
    assert get(server, tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_server_that_sends_another_range_is_not_listened_to(server, tmp_path):
    server.rate = 1e6
    server.fault = first("wrong range", "cut")
    assert get(server, tmp_path / "file.bin").read_bytes() == CONTENT
    assert [bool(asked.range) for asked in server.asked] == [True, False, False]
    assert server.asked[0].sent < 500_000


def test_another_etag_with_each_answer_is_survived(server, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "MIN_SEGMENT", 100_000)
    server.fault = lambda asked, rng: "etag"
    assert get(server, tmp_path / "file.bin").read_bytes() == CONTENT
    assert server.asked[-1].range is None


@pytest.mark.parametrize("left", [b"", DAMAGED[:5000], CONTENT, CONTENT + b"more"])
@pytest.mark.parametrize(
    "state",
    [
        b"",
        b"\xff\0",
        b"{}\n",
        b'{"source": "", "bounds": [[0, 9]], "validators": {}}\nx',
        b'{"source": "", "bounds": [[0, 1024000]], "validators": {}}\n00000000000000900000\n',  # more than there is
    ],
)
def test_damaged_leftovers_end_well(server, tmp_path, left, state):
    cache_folder(tmp_path).mkdir()
    (cache_folder(tmp_path) / "file.bin.part").write_bytes(left)
    (cache_folder(tmp_path) / "file.bin.state").write_bytes(state)
    assert get(server, tmp_path / "file.bin").read_bytes() == CONTENT
    assert len(server.asked) == 1
    assert names(tmp_path) == ["file.bin"]


def test_an_empty_file_has_no_ranges(server, tmp_path):
    server.files["file.bin"] = b""
    assert fetch(f"{server.url}/file.bin", tmp_path / "file.bin", md5(b"")).read_bytes() == b""
    assert [bool(asked.range) for asked in server.asked] == [True, False]


def test_wrong_content_is_refused_and_removed(server, tmp_path):
    target = tmp_path / "file.bin"
    target.write_bytes(b"as it was")
    server.files["file.bin"] = DAMAGED
    with pytest.raises(UserError, match="has other content than its publisher's"):
        get(server, target)
    assert target.read_bytes() == b"as it was"
    assert names(tmp_path) == ["file.bin"]


def test_another_size_than_the_publishers_is_refused_before_it_is_received(server, tmp_path):
    server.rate = 1e6
    server.fault = lambda asked, rng: "missing" if len(server.asked) > 20 else None  # or it would be asked forever
    with pytest.raises(UserError, match="has 1024000 bytes, but its publisher's file has 1000"):
        get(server, tmp_path / "file.bin", size=1000)
    assert all(asked.sent < len(CONTENT) / 2 for asked in server.asked)
    server.rate, server.fault = 0, lambda asked, rng: None
    get(server, tmp_path / "file.bin", size=len(CONTENT))


def test_more_than_the_disk_holds_is_refused_before_it_is_received(server, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    server.rate = 1e6
    with pytest.raises(UserError, match=r"has 1.0 MB, but the disk has only 0.0 MB free: free some space"):
        get(server, tmp_path / "file.bin")
    assert sum(asked.sent for asked in server.asked) < len(CONTENT)
    assert names(tmp_path) == []


def test_a_busy_server_is_asked_again(server, tmp_path):
    server.fault = first("error", "error", "error")
    assert get(server, tmp_path / "file.bin").read_bytes() == CONTENT


def test_pauses_grow_and_are_as_long_as_the_server_wishes(server, tmp_path, monkeypatch):
    def took(wait: float) -> float:
        server.fault, server.retry_after = first("error", "error", "error"), wait
        began = time.monotonic()
        get(server, tmp_path / f"{wait}")
        return time.monotonic() - began

    assert took(1) >= 3
    monkeypatch.setattr(connection, "BACKOFF_S", 0.1)
    assert took(0) >= 0.8 * (0.1 + 0.2 + 0.4)


@pytest.mark.parametrize("fault", ["drip", "drip head", "hang"])
def test_a_server_that_dawdles_is_given_up(server, tmp_path, monkeypatch, fault):
    monkeypatch.setattr(connection, "TIMEOUT_S", 0.25)
    server.fault = first(fault)
    assert get(server, tmp_path / "file.bin").read_bytes() == CONTENT
    assert len(server.asked) == 2


def test_a_missing_file_is_asked_for_once(server, tmp_path):
    with pytest.raises(UserError, match=r"/other answered 404 .*set DATASET_MIRROR"):
        fetch(f"{server.url}/other", tmp_path / "other", md5(CONTENT))
    assert len(server.asked) == 1
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("ftp://127.0.0.1/x", "answered 302 Found and sent on to ftp://127.0.0.1/x: check"),
        ("file:///etc/passwd", "Redirection to url 'file:///etc/passwd' is not allowed: check"),
        ("/file.bin", "would lead to an infinite loop: check"),
    ],
)
def test_a_redirect_that_leads_nowhere_is_one_sentence(server, tmp_path, place, said):
    server.moved = place
    server.fault = lambda asked, rng: "redirect"
    with pytest.raises(UserError, match=re.escape(said)) as refused:
        get(server, tmp_path / "file.bin")
    assert "\n" not in str(refused.value)
    assert names(tmp_path) == []


def test_a_segment_that_is_not_to_be_had_ends_the_others(server, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "MIN_SEGMENT", 100_000)
    server.rate = 20_000
    server.fault = lambda asked, rng: "missing" if asked.range.endswith("-1023999") else None
    with pytest.raises(UserError, match="404"):
        get(server, tmp_path / "file.bin")
    assert sum(asked.sent for asked in server.asked) < len(CONTENT) / 2


def test_an_answer_that_is_not_http_stays_out_of_the_sentence(server, tmp_path):
    server.fault = lambda asked, rng: "garbage"
    with pytest.raises(UserError) as error:
        get(server, tmp_path / "file.bin")
    assert "file.bin (the answer is not HTTP): check the network" in str(error.value)


def test_no_connection_is_one_sentence(tmp_path):
    with pytest.raises(
        UserError, match=r"Cannot download file.bin: http://127.0.0.1:9/file.bin \(.*refused.*\): check"
    ):
        fetch("http://127.0.0.1:9/file.bin", tmp_path / "file.bin", md5(CONTENT))


def test_mirrors_are_tried_in_turn_and_what_one_began_another_ends(server, tmp_path):
    server.fault = first("missing")
    urls = [f"{server.url}/gone/file.bin", "http://127.0.0.1:9/file.bin", f"{server.url}/file.bin"]
    assert fetch(urls, tmp_path / "one", md5(CONTENT)).read_bytes() == CONTENT

    with serving({"file.bin": DAMAGED}) as wrong, serving({"file.bin": CONTENT}) as broken:
        assert fetch([f"{wrong.url}/file.bin", urls[-1]], tmp_path / "two", md5(CONTENT)).read_bytes() == CONTENT
        broken.fault = lambda asked, rng: "missing" if len(broken.asked) > 1 else "cut"
        server.asked.clear()
        server.fault = lambda asked, rng: "etag"  # mirrors name the same content each in its own way
        fetch([f"{broken.url}/file.bin", urls[-1]], tmp_path / "three", md5(CONTENT))
    assert (tmp_path / "three").read_bytes() == CONTENT
    assert sum(asked.sent for asked in (*broken.asked, *server.asked)) == len(CONTENT)
    with pytest.raises(UserError, match=r"file.bin answered 404 Not Found; .*file.bin \(.*refused"):
        server.fault = lambda asked, rng: "missing"
        fetch(urls[:2], tmp_path / "four", md5(CONTENT))


def test_several_files_come_and_one_that_fails_is_named(server, tmp_path, capsys):
    contents = {f"{number}.bin": CONTENT[number:] for number in range(6)}
    server.files |= contents
    wanted = [RemoteFile(f"{server.url}/{name}", tmp_path / name, md5(content)) for name, content in contents.items()]
    missing = [RemoteFile(f"{server.url}/{name}", tmp_path / name, md5(CONTENT)) for name in ("x", "y")]
    with pytest.raises(UserError, match=r"/x answered 404.* 1 more file failed as well"):
        fetch_all(missing + wanted)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == contents
    assert fetch_all(wanted) == [tmp_path / name for name in contents]
    assert capsys.readouterr().out.count("is already there") == 6
    assert fetch_all([]) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a Linux device that is always full")
def test_a_full_disk_is_one_sentence(server, tmp_path):
    cache_folder(tmp_path).mkdir()
    (cache_folder(tmp_path) / "file.bin.part").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"Cannot write .*file.bin: No space left on device; free some space"):
        get(server, tmp_path / "file.bin")


def test_a_target_that_cannot_be_written_is_one_sentence(server, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UserError, match=r"Cannot write .*; free some space or set data.root"):
        get(server, tmp_path / "file" / "file.bin")


def test_a_packed_file_is_verified_by_its_content(server, tmp_path):
    server.files["file.gz"] = gzip.compress(CONTENT, compresslevel=1)  # not as the publisher packed it
    url = f"{server.url}/file.gz"
    assert fetch(url, tmp_path / "file", md5(CONTENT), size=len(CONTENT)).read_bytes() == CONTENT
    assert fetch(f"{url}?download=1", tmp_path / "file2", md5(CONTENT)).read_bytes() == CONTENT
    with pytest.raises(UserError, match="expands beyond its limit"):
        fetch(url, tmp_path / "other", md5(CONTENT), size=len(CONTENT) - 1)
    server.files["file.gz"] = b"<html>log in first</html>"
    with pytest.raises(UserError, match=r"other content than its publisher's \(damaged: Not a gzipped file"):
        fetch(url, tmp_path / "other", md5(CONTENT))
    assert names(tmp_path) == ["file", "file2"]


def test_the_mirror_may_be_a_url_or_a_folder(server, tmp_path, monkeypatch):
    monkeypatch.setenv("DATASET_MIRROR", f"{server.url}/deep/")
    fetch("https://publisher.invalid/a/file.bin?x=1", tmp_path / "one", md5(CONTENT))
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
    monkeypatch.setenv("DATASET_MIRROR", "ftp://mirror.invalid/data")
    with pytest.raises(UserError, match=r"=ftp://mirror.invalid/data can't be read: give a URL with http:// or https:"):
        fetch("https://publisher.invalid/a/file.bin", tmp_path / "three", md5(CONTENT))


def test_proxies_are_honoured(server, tmp_path, monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("https_proxy", server.url)
    assert fetch("http://publisher.invalid/file.bin", tmp_path / "one", md5(CONTENT)).read_bytes() == CONTENT
    with pytest.raises(UserError, match="403"):
        fetch("https://publisher.invalid/file.bin", tmp_path / "two", md5(CONTENT))
    assert server.asked[-1].name == "publisher.invalid:443"  # what it was to be connected with


def test_plain_lines_tell_speed_and_time_left(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fetching, "LINE_S", 0.2)
    server.rate = 1e6
    get(server, tmp_path / "file.bin")
    lines = capsys.readouterr().out.splitlines()
    assert all(re.fullmatch(r"file.bin: \d+% of 1.0 MB, \d\.\d\d MB/s, \d+ s left", line) for line in lines[1:])
    assert len(lines) > 2


def test_a_terminal_shows_a_bar_with_speed_and_time_left(server, tmp_path, monkeypatch, capsys):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    server.rate = 1e6
    get(server, tmp_path / "file.bin")
    get(server, tmp_path / "file.bin")
    shown = sys.stderr.getvalue()
    assert re.search(r"file.bin.*━.*/1.0 MB.* (k?B|bytes|MB)/s.*0:00:0", shown), shown
    assert "is already there" in shown
    assert capsys.readouterr().out == ""


def test_a_lock_is_held_by_one_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "POLL_S", 0.01)
    holders: list[int] = []

    def hold(number: int) -> None:
        for _ in range(25):
            with locked(tmp_path / "set" / "file"):
                holders.append(number)
                assert holders == [number]
                holders.clear()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(hold, range(4)))
    assert list((tmp_path / "set").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_no_endless_wait(server, tmp_path):
    (tmp_path / "data").symlink_to(tmp_path / "not mounted")
    with pytest.raises(UserError, match=r"Cannot write .*data.file.bin: File exists; free some space or set data.root"):
        get(server, tmp_path / "data" / "file.bin")


def test_clean_empties_the_cache_and_nothing_else(server, tmp_path):
    get(server, tmp_path / "set" / "file.bin")
    cache = cache_folder(tmp_path / "set")
    get(server, cache / "archive.zip")
    assert cache_folder(cache) == cache
    for name, size in {
        "a.part": 10,
        "a.state": 2,
        "b.unpacked": 300,
        "c.new/deep/1.jpg": 4000,
        "d.part": 50000,
    }.items():
        (cache / name).parent.mkdir(parents=True, exist_ok=True)
        (cache / name).write_bytes(bytes(size))
    with locked(cache.parent / "d"):  # somebody is at it
        assert clean(tmp_path) == 4312 + len(CONTENT)
        assert names(tmp_path) == ["set/.downloads/d.lock", "set/.downloads/d.part", "set/file.bin"]
    assert clean(tmp_path) == 50000
    assert names(tmp_path) == ["set/file.bin"]
    assert not cache.exists()
    assert clean(tmp_path) == clean(tmp_path / "none") == 0


MNIST = {
    "train-images-idx3-ubyte": "md5:6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "md5:a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "md5:2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "md5:27ae3e4e09519cfbb04c329615203637",
}


def real_files(*wanted: str) -> dict[str, bytes]:
    folder = os.environ.get("TEST_DATA_DIR")
    if not folder or not all(Path(folder, name).is_file() for name in wanted):
        pytest.skip(f"TEST_DATA_DIR names no folder with {', '.join(wanted)}")
    return {name: Path(folder, name).read_bytes() for name in wanted}


def test_the_real_mnist_is_downloaded_verified_and_unpacked(tmp_path):
    with serving(real_files(*(f"{name}.gz" for name in MNIST))) as server:
        fetch_all(
            [RemoteFile(f"{server.url}/{name}.gz", tmp_path / name, checksum) for name, checksum in MNIST.items()]
        )
    assert {path.name: path.stat().st_size for path in tmp_path.iterdir()} == {
        "train-images-idx3-ubyte": 16 + 60_000 * 784,
        "train-labels-idx1-ubyte": 8 + 60_000,
        "t10k-images-idx3-ubyte": 16 + 10_000 * 784,
        "t10k-labels-idx1-ubyte": 8 + 10_000,
    }


def test_real_annotations_are_downloaded_and_unpacked(tmp_path):
    files = real_files("coco128-detection.zip")
    with serving(files) as server:
        checksum = md5(files["coco128-detection.zip"])
        archive = fetch(f"{server.url}/coco128-detection.zip", cache_folder(tmp_path) / "labels.zip", checksum)
    folder = extract(archive, tmp_path / "labels", max_bytes=1_000_000)
    assert len(list(folder.rglob("*.txt"))) > 200
    assert clean(tmp_path) == len(files["coco128-detection.zip"])


def test_failures_count_only_in_a_row_without_progress():
    received, tries = [0], []

    def attempt(gain: int, successes: int) -> str:
        tries.append(received[0])
        received[0] += gain
        if len(tries) == successes:
            return "done"
        raise connection.Broken("cut")

    def count(gain: int, successes: int) -> int:
        tries.clear()
        assert connection.retry("URL", lambda: attempt(gain, successes), lambda: received[0], lambda: None) == "done"
        return len(tries)

    assert count(connection.PROGRESS, 4 * connection.ATTEMPTS) == 4 * connection.ATTEMPTS
    assert count(connection.PROGRESS - 1, connection.ATTEMPTS) == connection.ATTEMPTS
    with pytest.raises(connection.SourceFailed, match=r"URL \(cut\)"):
        count(connection.PROGRESS - 1, connection.ATTEMPTS + 1)


def test_a_file_whose_size_changes_while_it_is_fetched_is_begun_anew(server, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "MIN_SEGMENT", 100_000)
    server.etags = False  # nothing but the size tells
    longer = CONTENT + b"more"

    def grow(asked, rng) -> None:
        if not asked.range.startswith("bytes=0-"):
            server.files["file.bin"] = longer

    server.fault = grow
    fetch(f"{server.url}/file.bin", tmp_path / "file.bin", md5(longer))
    assert (tmp_path / "file.bin").read_bytes() == longer
    assert sum(asked.range.startswith("bytes=0-") for asked in server.asked) == 2


def test_a_file_of_another_size_than_its_publisher_says_is_refused_at_once(server, tmp_path):
    server.fault = lambda asked, rng: "missing" if len(server.asked) > 20 else None  # or it would be asked forever
    with pytest.raises(UserError, match=rf"has {len(CONTENT)} bytes, but its publisher's file has {len(CONTENT) + 1}"):
        get(server, tmp_path / "file.bin", size=len(CONTENT) + 1)
    assert names(tmp_path) == []

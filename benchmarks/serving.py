"""Measure the service beside LitServe and the bare network: the same network, photos, clients and cores, in turns.

    python ../benchmarks/serving.py EXPORT PYTHON  # in the folder of a project; prints Markdown, ten minutes

PYTHON is that of an environment with litserve, schemathesis, onnxruntime, pillow, simplejpeg and OpenCV. Then come 32
clients for a minute, and requests that schemathesis makes up from the service's OpenAPI, and 10,000 hostile ones.
"""

import base64
import io
import json
import os
import random
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, os.getcwd())

from src.kit.benchmarks.serve import figures, load, measure, sample
from src.kit.inference import read_card

ROUNDS, SECONDS, CLIENTS = 3, 5.0, 32
LONG = 60.0  # seconds without an error
EXAMPLES = 1000  # requests to each endpoint
HOSTILE, AT_ONCE = 10_000, 64
SIDES = (2000, 4000, 4900, 6000, 20_000, 2**31 - 1)  # of bombs, in pixels
LITSERVE = """
import sys
import litserve
from src.kit.inference import Predictor

class API(litserve.LitAPI):
    def setup(self, device):
        self.predictor = Predictor.open(sys.argv[1], 1)
    def decode_request(self, request):
        return request["file"].file.read()
    def batch(self, photos):
        return photos
    def predict(self, photos):
        return self.predictor.predict(photos)
    def unbatch(self, found):
        return found
    def encode_response(self, found):
        return {"predictions": [found]}

if __name__ == "__main__":
    api = API(max_batch_size=16, batch_timeout=0.001)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=int(sys.argv[3]))
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="error")
"""


def main(export: Path, python: str) -> None:
    """Print the medians of the rounds."""
    ours: list[dict[str, Any]] = []
    theirs: list[dict[str, Any]] = []
    for _ in range(ROUNDS):
        ours.append(measure(export, SECONDS, CLIENTS)["rows"])
        theirs.append(litserve(export, python))
    print("| | p50 ms | p95 ms | p99 ms | a second | CPU ms | errors |\n|---|---:|---:|---:|---:|---:|---:|")
    for side, rounds in (("", ours), ("LitServe", theirs)):
        for name in rounds[0]:
            values = {key: statistics.median(each[name][key] for each in rounds) for key in rounds[0][name]}
            cells = [f"{values[key]:,.2f}" for key in ("p50_ms", "p95_ms", "p99_ms")]
            cells += [f"{values['per_s']:,.0f}", f"{values['cpu_ms']:.2f}" if "cpu_ms" in values else "-"]
            errors = sum(each[name]["errors"] for each in rounds)
            print(f"| {side} {name} | {' | '.join(cells)} | {errors} |")
    many = f"service, {CLIENTS} clients"
    pairs = [(a[many], b[many]) for a, b in zip(ours, theirs, strict=True)]
    ratio = statistics.median(a["per_s"] / b["per_s"] for a, b in pairs)
    cost = statistics.median(b["cpu_ms"] / a["cpu_ms"] for a, b in pairs)
    added = statistics.median(a["service, 1 client"]["p50_ms"] - a["session.run"]["p50_ms"] for a in ours)
    print(f"\nRequests a second of LitServe's: {ratio:.1f}; LitServe's processor time of ours: {cost:.1f}")
    print(f"p50 over session.run: {added:.2f} ms; load of the machine: {os.getloadavg()[1]:.0f}")
    endure(export, python)


def endure(export: Path, python: str) -> None:
    """Many clients for a minute, and made-up requests; print what came of them, and the memory."""
    command = [sys.executable, "scripts/serve.py", str(export), "--port", "0", "--cache-mb", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        port = int(process.stdout.readline().partition("127.0.0.1:")[2].split()[0])
        _, body, kind = sample(read_card(export))
        load(port, body, kind, 2, 0.5)
        before = figures(port)["process_resident_memory_bytes"]
        found = load(port, body, kind, CLIENTS, LONG)
        after = figures(port)["process_resident_memory_bytes"]
        print(f"{CLIENTS} clients for {LONG:.0f} s: {found['requests']:,} requests, {found['errors']} errors,", end=" ")
        print(f"{before / 2**20:.0f} MiB before, {after / 2**20:.0f} MiB after")
        address = f"http://127.0.0.1:{port}/openapi.json"
        # not every file is a photo: a refusal of one that the schema allows is no failure
        options = ["--max-examples", str(EXAMPLES), "--exclude-checks", "positive_data_acceptance", "--seed", "1"]
        tool = str(Path(python).with_name("schemathesis"))
        with tempfile.TemporaryDirectory() as scratch:  # for the files that it leaves
            command = [tool, "run", address, *options, "--no-color"]
            done = subprocess.run(command, cwd=scratch, capture_output=True, text=True)
        told = [line.strip() for line in done.stdout.splitlines() if "generated" in line or "Failures" in line]
        print(f"schemathesis: exit code {done.returncode}; {'; '.join(told)}")
        attack(port)
    finally:
        process.terminate()
        process.wait()


def attack(port: int) -> None:
    """Send hostile requests; print how often each status was the answer, and the most memory that the service took."""
    before, most, statuses = figures(port)["process_resident_memory_bytes"], 0.0, Counter[str]()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for start in range(0, HOSTILE, 500):
            statuses.update(pool.map(partial(send_hostile, port), range(start, start + 500)))
            most = max(most, figures(port)["process_resident_memory_bytes"])
    waiting = figures(port)
    print(f"{HOSTILE:,} hostile requests, {AT_ONCE} at a time: {dict(sorted(statuses.items()))};", end=" ")
    print(f"{before / 2**20:.0f} MiB before, at most {most / 2**20:.0f} MiB;", end=" ")
    print(f"{waiting['held_bytes']:.0f} bytes and {waiting['queue_length']:.0f} samples left waiting")


def send_hostile(port: int, seed: int) -> str:
    """The status of the answer to one request, or "ended" if the service said nothing and closed the connection."""
    made = random.Random(seed)
    request, patient = hostile(made)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            if not patient:  # a sender that stops, and takes the answer only if there is one already
                connection.settimeout(made.uniform(0, 1))
            connection.sendall(request)
            answer = connection.recv(4096)
    except TimeoutError:
        return "none: the sender stopped" if not patient else "none in 60 s"
    except OSError:  # ended while we wrote
        return "ended"
    return answer.split(b" ", 2)[1].decode("latin-1") if answer else "ended"


def hostile(made: random.Random) -> tuple[bytes, bool]:
    """A request, and whether its sender waits for an answer."""
    kind = made.choice(["photo", "photo", "photo", "bomb", "form", "json", "json", "head", "head", "stop"])
    if kind == "head":
        return hostile_head(made), True
    if kind == "json":
        body, form = spoil(made, hostile_json(made)) if made.random() < 0.5 else hostile_json(made), "application/json"
    else:
        photo = (
            bomb(made.choice(SIDES), made.choice([1, 8, 16]), made.choice([0, 2]))
            if kind == "bomb"
            else spoil(made, hostile_photo(made))
        )
        body = b'--B\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n' + photo + b"\r\n--B--\r\n"
        body, form = spoil(made, body) if kind == "form" else body, "multipart/form-data; boundary=B"
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: {form}\r\nContent-Length: {len(body)}\r\n\r\n"
    request = head.encode() + body
    return (request[: made.randrange(len(request))], False) if kind == "stop" else (request, True)


def spoil(made: random.Random, content: bytes) -> bytes:
    """Random bytes in place of some, or without the end, or with more."""
    spoilt = bytearray(content)
    for _ in range(made.choice([1, 1, 4, 30])):
        spoilt[made.randrange(len(spoilt))] = made.randrange(256)
    if made.random() < 0.3:
        del spoilt[made.randrange(len(spoilt)) :]
    if made.random() < 0.2:
        spoilt += made.randbytes(made.choice([1, 1000, 100_000]))
    return bytes(spoilt)


def hostile_photo(made: random.Random) -> bytes:
    """A sound photo of one of six formats and of several modes."""
    side = made.choice([1, 8, 33, 300])
    pixels = np.frombuffer(made.randbytes(side * side * 3), np.uint8).reshape(side, side, 3)
    file, kind = io.BytesIO(), made.choice(["jpeg", "png", "webp", "bmp", "gif", "tiff"])
    mode = made.choice(["RGB", "L", "1", "P", "CMYK", "I;16"]) if kind == "tiff" else made.choice(["RGB", "L"])
    Image.fromarray(pixels).convert("L" if mode == "I;16" else mode).convert(mode).save(file, kind)
    return file.getvalue()


@cache
def bomb(side: int, depth: int, colours: int) -> bytes:
    """A PNG of zeros, which is small, or only claims to be so large."""
    rows = b"\0" * (side * (1 + (side * depth * (3 if colours else 1) + 7) // 8) if side < 6000 else 1_000_000)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", side, side, depth, colours, 0, 0, 0))]
    chunks += [(b"IDAT", zlib.compress(rows, 1)), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def hostile_json(made: random.Random) -> bytes:
    """An object that is no request, or one with something else than photos."""
    deep = b"[" * made.choice([100, 100_000])
    photo = base64.b64encode(hostile_photo(made)).decode()
    images = [made.choice([photo, photo[:-1], "http://169.254.169.254/", "", 1, None, {}, ["x"], "\0", "é", 1e308])]
    found = [{"images": images}, {"images": images * 40}, {"rows": [{"a": 1}]}, {"images": {}}, {}, [], 1, "x", None]
    return deep if made.random() < 0.1 else json.dumps(made.choice(found)).encode()


def hostile_head(made: random.Random) -> bytes:
    """A head that is none, is endless, contradicts itself, or is followed by something else than it says."""
    get, post = b"GET /health HTTP/1.1\r\nHost: x\r\n", b"POST /predict HTTP/1.1\r\nHost: x\r\n"
    chunked = post + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
    size = made.choice([100, 70_000, 300_000])
    heads = [
        made.randbytes(size) + b"\r\n\r\n",
        spoil(made, get + b"\r\n") + b"\r\n\r\n",
        get + b"X: " + b"a" * size + b"\r\n\r\n",
        get + b"a: b\r\n" * (size // 6) + b"\r\n",
        b"GET /" + b"a" * size + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /" + made.randbytes(20).replace(b"\n", b"") + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        (get + b"\r\n") * (size // 40),
        made.choice([b"BREW", b"CONNECT", b"TRACE", b"PUT"]) + b" /predict HTTP/1.1\r\nHost: x\r\n\r\n",
        get + b"Connection: upgrade\r\nUpgrade: " + made.choice([b"h2c", b"websocket"]) + b"\r\n\r\n" + b"x" * 99,
        post + b"Content-Length: " + made.choice([b"-1", b"1e9", b"99999999999999999999", b"0x10"]) + b"\r\n\r\n",
        post + b"Content-Length: 99999999\r\n\r\n",
        chunked + b"Content-Length: 3\r\n\r\n0\r\n\r\n",
        chunked + b"\r\n" + made.choice([b"ZZ\r\n", b"1;" + b"x" * size + b"\r\nx\r\n0\r\n\r\n"]),
        chunked + b"\r\n1\r\nx\r\n0\r\n" + b"a: b\r\n" * (size // 6) + b"\r\n",
        chunked + b"\r\n" + (b"%x\r\n" % size + b"x" * size + b"\r\n") * 40 + b"0\r\n\r\n",
        post + b"Content-Type: multipart/form-data; boundary=" + b"B" * size + b"\r\nContent-Length: 2\r\n\r\nxx",
        post + b"Content-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nxx",
    ]
    return made.choice(heads)


def cpu_seconds(group: int) -> float:
    """Processor time of a group of processes."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[2]) == group:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def litserve(export: Path, python: str) -> dict[str, Any]:
    """LitServe with one client and with several."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    _, body, kind = sample(read_card(export))
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    cores = len(os.sched_getaffinity(0))
    script = Path("outputs/litserve_app.py")
    script.write_text(LITSERVE, "utf-8")
    command = [python, str(script), str(export), str(port), str(cores)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        end = time.monotonic() + 60
        while True:
            try:
                load(port, body, kind, 2, 0.5)
                break
            except subprocess.CalledProcessError:
                assert time.monotonic() < end, "LitServe did not start"
                time.sleep(0.5)
        rows = {}
        for count in (1, CLIENTS):
            before = cpu_seconds(process.pid)
            found = load(port, body, kind, count, SECONDS)
            found |= {"cpu_ms": 1000 * (cpu_seconds(process.pid) - before) / max(1, found["requests"])}
            rows[f"service, {count} client{'s' * (count > 1)}"] = found
        return rows
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        time.sleep(1)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2])

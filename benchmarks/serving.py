"""Measure the service beside LitServe and the bare network: the same network, photos, clients and cores, in turns.

    python ../benchmarks/serving.py EXPORT PYTHON  # in the folder of a project; prints Markdown, four minutes

PYTHON is that of an environment with litserve, schemathesis, onnxruntime, pillow, simplejpeg and OpenCV. Then come 32
clients for a minute, and requests that schemathesis makes up from the service's OpenAPI.
"""

import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, os.getcwd())

from src.kit.benchmarks.serve import figures, load, measure, sample
from src.kit.inference import read_card

ROUNDS, SECONDS, CLIENTS = 3, 5.0, 32
LONG = 60.0  # seconds without an error
EXAMPLES = 1000  # requests to each endpoint
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
    finally:
        process.terminate()
        process.wait()


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

"""Measure the service beside LitServe and the bare network: the same network, photos, clients and cores, in turns.

    python ../benchmarks/serving.py EXPORT LITSERVE_PYTHON  # in the folder of a project; prints Markdown, two minutes

LITSERVE_PYTHON is the Python of an environment with litserve, onnxruntime, pillow, simplejpeg and OpenCV.
"""

import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, os.getcwd())

from src.kit.benchmarks.serve import load, measure, sample
from src.kit.inference import read_card

ROUNDS, SECONDS, CLIENTS = 3, 5.0, 32
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
    print("| | p50 ms | p95 ms | p99 ms | a second | errors |\n|---|---:|---:|---:|---:|---:|")
    for side, rounds in (("", ours), ("LitServe", theirs)):
        for name in rounds[0]:
            values = {key: statistics.median(each[name][key] for each in rounds) for key in rounds[0][name]}
            cells = [f"{values[key]:,.2f}" for key in ("p50_ms", "p95_ms", "p99_ms")]
            errors = sum(each[name]["errors"] for each in rounds)
            print(f"| {side} {name} | {' | '.join(cells)} | {values['per_s']:,.0f} | {errors} |")
    many = f"service, {CLIENTS} clients"
    ratio = statistics.median(a[many]["per_s"] / b[many]["per_s"] for a, b in zip(ours, theirs, strict=True))
    added = statistics.median(a["service, 1 client"]["p50_ms"] - a["session.run"]["p50_ms"] for a in ours)
    print(f"\nRequests a second of LitServe's: {ratio:.1f}; p50 over session.run: {added:.2f} ms")


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
        counts = (1, CLIENTS)
        return {f"service, {n} client{'s' * (n > 1)}": load(port, body, kind, n, SECONDS) for n in counts}
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        time.sleep(1)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2])

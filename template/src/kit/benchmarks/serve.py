"""`python scripts/benchmark.py serve [MODEL]`: latency, throughput, memory and CPU of the service and the bare network.

The service runs as a process of its own, without its cache; clients are another process, each of which sends its next
request when the last one is answered, over one connection. Requests hold a PNG of the network's size, or a table's row.
"""

import argparse
import asyncio
import base64
import io
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
ROOT = Path(__file__).resolve().parents[3]


def command(argv: Sequence[str]) -> Path:
    """Measure, print a table, and return the folder with serve.json and serve.png."""
    parser = argparse.ArgumentParser(prog="benchmark.py serve", description=__doc__)
    parser.add_argument("model", nargs="?", default="", help="a run, an export or an .onnx file (the newest export)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement (5)")
    parser.add_argument("--clients", type=int, default=32, help="at the same time (32); one alone is measured too")
    options = parser.parse_args(argv)
    from src.kit.run import new_folder
    from src.kit.serving import Settings, find_model
    from src.kit.storage import write_json

    path = find_model(Settings(model_path=options.model))
    result = measure(path, options.seconds, options.clients)
    folder = new_folder(Path("outputs") / "benchmarks", "serve")
    write_json(folder / "serve.json", result)
    draw(result, folder / "serve.png")
    print_rows(result)
    print(f"Written to {folder}")
    return folder


def measure(path: Path, seconds: float, clients: int) -> dict[str, Any]:
    """The bare network, its prediction in this process, and the service with one client and with several."""
    from src.kit.errors import UserError
    from src.kit.inference import Predictor

    predictor = Predictor.open(path, 1)
    source, body, kind = sample(predictor.card)
    arrays = predictor.kind.prepare(predictor.card, [predictor.read(source)]).arrays
    rows = {
        "session.run": repeat(lambda: predictor.compute(arrays), min(seconds, 3)),
        "predict": repeat(lambda: predictor.predict([source]), min(seconds, 3)),
    }
    process = subprocess.Popen(
        [sys.executable, "scripts/serve.py", str(path.resolve()), "--port", "0", "--cache-mb", "0"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        words = process.stdout.readline().partition("127.0.0.1:")[2].split()
        if not words:
            raise UserError("The service did not start, for the reason above.")
        port = int(words[0])
        load(port, body, kind, 2, 0.5)
        for count in dict.fromkeys((1, clients)):
            before = figures(port)
            found = load(port, body, kind, count, seconds)
            used = figures(port)["process_cpu_seconds_total"] - before["process_cpu_seconds_total"]
            found |= {"cpu_ms": 1000 * used / max(1, found["requests"])}
            rows[f"service, {count} client{'s' * (count > 1)}"] = found
        memory = figures(port)["process_resident_memory_bytes"]
    finally:
        process.terminate()
        process.wait()
    return {"model": str(path), "request_bytes": len(body), "memory_mib": memory / 2**20, "rows": rows}


def sample(card: Any) -> tuple[Any, bytes, str]:
    """An input for the network, and as the body of a request with its type."""
    if len(card.input["shape"]) == 1:
        from src.kit.inference import kind_of

        row = kind_of(card).example(card)  # type: ignore[attr-defined]
        return row, json.dumps({"rows": [row]}).encode(), "application/json"
    from PIL import Image

    _, height, width = card.input["shape"]
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC).save(file, "png")
    head = b'--B\r\nContent-Disposition: form-data; name="file"; filename="photo.png"\r\n\r\n'
    body = head + file.getvalue() + b"\r\n--B--\r\n"
    return file.getvalue(), body, "multipart/form-data; boundary=B"


def repeat(function: Callable[[], Any], seconds: float) -> dict[str, Any]:
    """Call a function again and again for `seconds`."""
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return summary(times, seconds, 0)


def summary(times: Sequence[float], seconds: float, errors: int) -> dict[str, Any]:
    """Latencies in ms, and requests a second."""
    values = 1000 * np.array(times or [np.nan])
    latencies = {"mean_ms": float(values.mean())}
    latencies |= {f"{name}_ms": float(np.quantile(values, share)) for name, share in SHARES.items()}
    return {**latencies, "per_s": len(times) / seconds, "requests": len(times), "errors": errors}


def figures(port: int) -> dict[str, float]:
    """The metrics without labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    rows = (line.split() for line in lines if not line.startswith("#") and "{" not in line)  # labels hold spaces
    return {name: float(value) for name, value in rows}


def load(port: int, body: bytes, kind: str, clients: int, seconds: float) -> dict[str, Any]:
    """Send requests from a process of its own."""
    words = [port, clients, seconds, kind, base64.b64encode(body).decode()]
    command = [sys.executable, str(Path(__file__).resolve())]
    done = subprocess.run(command, input=json.dumps(words), capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


class Client(asyncio.Protocol):
    """Sends a request, and again when it is answered; reads no more of answers than it must, to leave the cores alone.

    Attributes:
        done: set when the time is over.
    """

    def __init__(self, request: bytes, end: float, times: list[float], bad: list[bytes]) -> None:
        """`end`: of `time.perf_counter`; seconds are added to `times`, status lines of errors to `bad`."""
        self.request, self.end, self.times, self.bad = request, end, times, bad
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        """Send the request."""
        self.sent, self.received = time.perf_counter(), b""
        if self.sent < self.end:
            self.transport.write(self.request)
            return
        self.done.set_result(None)
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, found, body = self.received.partition(b"\r\n\r\n")
        if not found or len(body) < int(head.lower().partition(b"content-length:")[2].split()[0]):
            return
        self.times.append(time.perf_counter() - self.sent)
        if not head.startswith(b"HTTP/1.1 200 "):
            self.bad.append(head.partition(b"\r\n")[0])
        self.ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the service ended a connection"))


async def send(port: int, clients: int, seconds: float, kind: str, body: bytes) -> dict[str, Any]:
    """The clients."""
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    times: list[float] = []
    bad: list[bytes] = []
    loop, started = asyncio.get_running_loop(), time.perf_counter()
    made = [Client(head.encode() + body, started + seconds, times, bad) for _ in range(clients)]
    for client in made:
        await loop.create_connection(lambda client=client: client, "127.0.0.1", port)  # type: ignore[misc]
    await asyncio.gather(*(client.done for client in made))
    return summary(times, time.perf_counter() - started, len(bad))


def print_rows(result: Mapping[str, Any]) -> None:
    """Print the table."""
    from rich.console import Console
    from rich.table import Column, Table

    table = Table(Column(no_wrap=True), title=f"{result['model']}, requests of {result['request_bytes']:,} bytes")
    names = ["mean_ms", *(f"{name}_ms" for name in SHARES), "per_s", "errors", "cpu_ms"]
    for name in names:
        table.add_column(name.replace("_", " ").replace("per s", "a second"), justify="right")
    for name, row in result["rows"].items():
        table.add_row(name, *(f"{row[key]:,.2f}" if key in row else "-" for key in names))
    Console().print(table)
    print(f"The service took {result['memory_mib']:,.0f} MiB of memory.")


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Draw the latencies of each row, and the throughput beside it."""
    from src.kit.report import BLUE, FAINT, GREEN, VERMILLION, new_figure, save_figure

    figure, rows = new_figure(8.4, 3.2), result["rows"]
    axes = figure.add_subplot()
    for place, row in enumerate(rows.values()):
        for k, (name, colour) in enumerate(zip(SHARES, (BLUE, GREEN, VERMILLION), strict=True)):
            label = name if not place else None
            axes.barh(place + 0.26 * (k - 1), row[f"{name}_ms"], 0.24, color=colour, label=label)
        axes.text(row["p99_ms"], place, f"   {row['per_s']:,.0f} a second", va="center", color=FAINT)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(0.5 * min(row["p50_ms"] for row in rows.values()), 15 * max(row["p99_ms"] for row in rows.values()))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("ms")
    axes.legend(loc="upper right")
    axes.set_title(result["model"], fontsize=10)
    save_figure(figure, path)


if __name__ == "__main__":
    port, clients, seconds, kind, content = json.load(sys.stdin)
    print(json.dumps(asyncio.run(send(port, clients, seconds, kind, base64.b64decode(content)))))

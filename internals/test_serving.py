"""The service over real sockets: answers equal `predict.py`'s, hostile requests are refused, no request is lost."""

import asyncio
import base64
import http.client
import io
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import uvicorn
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from sklearn.datasets import load_digits

from paths import TEMPLATE
from src.kit.benchmarks import serve
from src.kit.errors import UserError
from src.kit.inference import Card, Predictor, postprocess, preprocess, refer
from src.kit.loading import FileImages, Loader, Split
from src.kit.serving import Settings, app, create_app
from src.kit.serving.batching import Batcher, Model
from src.kit.serving.service import newest_export, to_json
from src.kit.serving.uploads import Buckets, measure_image
from src.kit.tabular import Table
from src.kit.tabular.preprocessing import fit

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
KEY = {"X-API-Key": "swordfish"}
CLASSES = ("cat", "dog", "fox", "hen")
IMAGES = {"shape": [3, 32, 32], "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3], "flippable": True}


def export(folder, seed=0, card=None, width=3 * 32 * 32, outputs=4):
    """A linear network with random weights and its card, as `scripts/export.py` leaves them."""
    generator = np.random.default_rng(seed)
    weights = generator.standard_normal((width, outputs), dtype=np.float32) / np.float32(width**0.5)
    card = card or Card("classification", "images", CLASSES, IMAGES, {"kind": "classes"}, model="linear")
    shape = ["batch", *card.input["shape"]]
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["input"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["output"])],
        "linear",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", outputs])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / "model.onnx")
    card.write(folder)
    return folder


def photo(seed=0, size=(120, 90), kind="png"):
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(file, kind)
    return file.getvalue()


@contextmanager
def served(path, change=lambda service: None, make=app.make_server, **settings):
    """The port of a server in a thread."""
    made = create_app(Settings(model_path=str(path), **settings))
    change(made)
    listener, server = socket.create_server(("127.0.0.1", 0)), make(made)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return export(tmp_path_factory.mktemp("run") / "export")


@pytest.fixture(scope="module")
def port(folder):
    with served(folder, upload_mb=1, cache_mb=0) as number:
        yield number


def ask(port, path="/predict", body=None, headers=None, method="POST"):
    """Status, content and headers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(method, path, body, headers or {})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, json.loads(content) if content[:1] in b"{[" else content, answer.headers


def form(*files, field="file", name=' filename="photo.png"'):
    """A multipart body and its header."""
    parts = [
        f'--B\r\nContent-Disposition: form-data; name="{field}";{name}\r\n\r\n'.encode() + file + b"\r\n"
        for file in files
    ]
    return {"body": b"".join(parts) + b"--B--\r\n", "headers": {"Content-Type": "multipart/form-data; boundary=B"}}


def as_json(content):
    return {"body": json.dumps(content).encode(), "headers": {"Content-Type": "application/json"}}


def predictions(answer):
    status, content, _ = answer
    assert status == 200, content
    return [{key: value for key, value in each.items() if key != "version"} for each in content["predictions"]]


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_a_photo_is_the_same_in_training_prediction_and_serving(folder, port, tmp_path, kind):
    path = tmp_path / f"photo.{kind}"
    path.write_bytes(photo(kind=kind))
    split = Split(FileImages([path], 32), np.zeros(1, np.int64), CLASSES)
    ((arrays, _),) = Loader(split, 1, IMAGES["mean"], IMAGES["std"])
    predictor = Predictor.open(folder)
    expected = postprocess(predictor.card, predictor.compute(np.asarray(arrays)), [(32, 32)])
    assert predictor.predict([path]) == expected
    assert predictions(ask(port, **form(path.read_bytes()))) == expected


def test_all_ways_to_send_several_photos_agree(folder, port):
    photos = [photo(seed) for seed in range(5)]
    expected = [each["scores"] for each in Predictor.open(folder).predict(photos)]
    plain = [base64.b64encode(each).decode() for each in photos]
    urls = [f"data:image/png;base64,{text}" for text in plain]
    for request in (form(*photos), as_json({"images": plain}), as_json({"images": urls})):
        found = [each["scores"] for each in predictions(ask(port, **request))]
        assert [list(each) for each in found] == [list(each) for each in expected]
        np.testing.assert_allclose([list(x.values()) for x in found], [list(x.values()) for x in expected], atol=1e-6)


def test_what_gathers_is_the_next_batch(folder):
    """One consumer: the batches are as large as they may be, in order, and each answer belongs to its photo."""
    model, sizes = Model(folder, 1), []
    photos = [photo(seed) for seed in range(20)]

    def measure(source):
        return 1 if source != b"odd" else source.missing  # a fault of ours

    async def run():
        batcher = Batcher(model, 1, 8, 100, measure, sizes.append)
        batcher.start()
        first = asyncio.create_task(batcher.submit(photos[:1]))
        await asyncio.sleep(0)
        answers = await batcher.submit([*photos[1:], b"no photo", b"odd"])
        await first
        await batcher.stop()
        return [answer for _, answer in answers]

    *found, refused, failed = asyncio.run(run())
    assert (sum(sizes), max(sizes), len(sizes)) == (22, 8, 3)
    assert isinstance(refused, UserError)
    assert isinstance(failed, AttributeError)
    assert [each["class"] for each in found] == [each["class"] for each in model.predictor.predict(photos[1:])]


def test_32_clients_get_their_own_answers(folder, port):
    photos = [photo(seed) for seed in range(64)]
    expected = [each["class"] for each in Predictor.open(folder).predict(photos)]
    with ThreadPoolExecutor(32) as pool:
        found = list(pool.map(lambda each: predictions(ask(port, **form(each)))[0]["class"], photos))
    assert found == expected


def bomb(width=30000, height=30000):
    """A PNG of a few bytes whose header claims many pixels."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b""))
    parts = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(kind, count):
    """A TIFF whose width is of another type: 2 for text, 3 for as many numbers of 16 bits."""
    content = photo(kind="tiff")
    entry = content.index(struct.pack("<H", 256), struct.unpack("<I", content[4:8])[0])
    return content[: entry + 2] + struct.pack("<HI", kind, count) + content[entry + 8 :]


HOSTILE = {
    "nothing": ({"body": b""}, 415, "a body without Content-Type"),
    "text": ({"body": b"x", "headers": {"Content-Type": "text/plain"}}, 415, "not text/plain"),
    "compressed": (form(b"x") | {"headers": {"Content-Type": "application/json", "Content-Encoding": "gzip"}}, 415, ""),
    "no boundary": ({"body": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400, "no form"),
    "no form": ({"body": b"x", "headers": form()["headers"]}, 400, "no form"),
    "a cut-off form": ({"body": form(photo())["body"][:-9], "headers": form()["headers"]}, 400, "no form"),
    "no file": (form(), 422, "Send 1 to 32 images"),
    "too many files": (form(*[b"x"] * 33), 422, "Send 1 to 32 images"),
    "other field": (form(photo(), field="image"), 422, "not in `image`"),
    "a text": (form(photo(), name=""), 422, "not a text"),
    "empty file": (form(b""), 422, "An image of 0 bytes is none of JPEG"),
    "a program": (form(b"\x7fELF" + b"\0" * 99), 422, "is none of JPEG"),
    "PostScript": (form(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), 422, "is none of JPEG"),
    "cut off": (form(photo()[:400]), 422, "Cannot decode"),
    "bomb": (form(bomb()), 422, "far more: make it smaller"),
    "large": (form(bomb(6000, 6000)), 422, "25,000,000 pixels, not 6000 x 6000"),
    "one of two": (form(photo(), b"GIF89a"), 422, "Number 2: An image of 6 bytes"),
    "a TIFF as wide as a text": (form(tiff(2, 4)), 422, "is none of"),
    "a TIFF of two widths": (form(tiff(3, 2)), 422, "is none of"),
    "broken TIFF": (form(b"II*\0\xff\xff\xff\xff"), 422, "is none of"),
    "not JSON": ({"body": b"{", "headers": as_json(0)["headers"]}, 400, "not JSON"),
    "not UTF-8": ({"body": b"\xff\xfe\x00\xd8", "headers": as_json(0)["headers"]}, 400, "not JSON"),
    "deep JSON": ({"body": b"[" * 200_000, "headers": as_json(0)["headers"]}, 400, "not JSON"),
    "a list": (as_json([1]), 422, '{"images"'),
    "an address": (as_json({"images": ["http://169.254.169.254/"]}), 422, "addresses are not fetched"),
    "a number": (as_json({"images": [1]}), 422, "addresses are not fetched"),
    "no images": (as_json({"images": []}), 422, "Send 1 to 32 images"),
    "another key": (as_json({"images": [], "path": "/etc/passwd"}), 422, '{"images"'),
    "too large": (form(b"x" * (1 << 20)), 413, "at most 1 MB"),
    "a lie about the size": ({"body": b"", "headers": {"Content-Length": "9" * 30}}, 400, ""),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_bad_request_is_one_sentence(port, name):
    request, status, message = HOSTILE[name]
    found, content, _ = ask(port, **request)
    assert found == status, content
    if message:
        assert set(content) == {"detail"}
        assert message in content["detail"]
        assert "\n" not in content["detail"]


def test_a_bad_request_leaves_nothing_behind(port):
    ask(port, **form(bomb(), b"x" * 10_000))
    text = ask(port, "/metrics", method="GET")[1].decode()
    assert "\nheld_bytes 0.0\n" in text
    assert "\nqueue_length 0.0\n" in text
    assert "\nprocess_resident_memory_bytes " in text or sys.platform != "linux"


def raw(port, data):
    """What the server says to bytes that are no proper request; b"" if it only ends the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        try:
            connection.sendall(data)
            return connection.recv(4096)
        except OSError:  # ended while we wrote
            return b""


GET = b"GET /health HTTP/1.1\r\nHost: x\r\n"
POST = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
BAD_HEADS = [
    GET + b"X: " + b"a" * 200_000 + b"\r\n\r\n",
    GET + b"a: b\r\n" * 30_000 + b"\r\n",
    GET + b"a: b\r\n" * 11_000 + b"\r\n",  # over the limit with its last bytes only
    b"GET /health?" + b"a" * 65_600 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /" + b"a" * 500_000,
    (GET + b"\r\n") * 1000,
    POST + b"Content-Length: -1\r\n\r\n",
    POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    CHUNKED + b"ZZ\r\n",
    CHUNKED + b"1;" + b"x" * 500_000,
    CHUNKED + b"1\r\nx\r\n0\r\n" + b"a: b\r\n" * 30_000 + b"\r\n",
    CHUNKED + b"1\r\nx\r\n0\r\na: " + b"b" * 500_000,
    b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
]


def refuses_bad_heads(port):
    for head in BAD_HEADS:
        assert raw(port, head).partition(b"\r\n")[0] in (b"", b"HTTP/1.1 400 Bad Request"), head[:200]
        assert ask(port, "/health", method="GET")[0] == 200


def test_a_bad_head_is_refused(port):
    refuses_bad_heads(port)
    requests = (GET + b"\r\n") * 10
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(requests + GET + b"Connection: close\r\n\r\n")
        assert b"".join(iter(lambda: connection.recv(1 << 16), b"")).count(b"HTTP/1.1 200 OK\r\n") == 11


def test_the_command_uvicorn_has_the_same_limits(folder, monkeypatch):
    monkeypatch.setattr(app, "HEAD_S", 0.2)
    with served(folder, make=lambda made: uvicorn.Server(uvicorn.Config(made, log_level="error"))) as port:
        refuses_bad_heads(port)
        assert raw(port, b"POST /predict HTTP/1.1\r\nX") == b""


def test_a_body_of_unknown_length_is_counted(port):
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert raw(port, head + (b"10000\r\n" + b"x" * 0x10000 + b"\r\n") * 17).startswith(b"HTTP/1.1 413")


def test_slow_senders_are_cut_off(folder, monkeypatch):
    monkeypatch.setattr(app, "HEAD_S", 0.2)
    with served(folder) as port:
        assert raw(port, b"POST /predict HTTP/1.1\r\nX") == b""
        head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
        assert raw(port, head) == b""
        assert "\nheld_bytes 0.0\n" in ask(port, "/metrics", method="GET")[1].decode()


def test_a_full_queue_asks_to_come_back(folder):
    with served(folder, queue=2) as port:
        status, content, headers = ask(port, **form(photo(1), photo(2), photo(3)))
        assert (status, headers["Retry-After"]) == (503, "1"), content
        assert ask(port, **form(photo(1), photo(2)))[0] == 200


def test_uploads_of_all_clients_together_are_bounded(folder):
    with served(folder, change=lambda made: setattr(made.state.service.uploads, "total", 5000)) as port:
        assert ask(port, **form(b"x" * 6000))[0] == 503
        assert ask(port, **form(photo(size=(20, 20))))[0] == 200


def test_a_client_that_asks_too_often_waits(folder):
    with served(folder, rate=1) as port:
        statuses = [ask(port, **form(photo()))[0] for _ in range(3)]
        assert statuses == [200, 200, 429]
        assert ask(port, **form(photo()))[2]["Retry-After"] == "1"
        assert ask(port, "/health", method="GET")[0] == 200


def test_tokens_come_back_with_time():
    buckets = Buckets(2)
    assert [buckets.take("a", 0) for _ in range(5)] == [0, 0, 0, 0, 0.5]
    assert buckets.take("b", 0) == 0
    assert (buckets.take("a", 0.5), buckets.take("a", 0.5), buckets.take("a", 60)) == (0, 0.5, 0)
    for client in range(20_000):
        buckets.take(str(client), 61)
    assert len(buckets.clients) == 10_000


def test_a_key_is_needed_where_there_is_one(folder):
    with served(folder, api_key="swordfish") as port:
        request = form(photo())
        for wrong in ({}, {"X-API-Key": "sword"}, {"Authorization": "Bearer "}, {"X-API-Key": "\xe9"}):
            status, content, _ = ask(port, request["body"] and "/predict", request["body"], request["headers"] | wrong)
            assert (status, set(content)) == (401, {"detail"})
        bearer = {"Authorization": "Bearer swordfish"}
        assert ask(port, "/predict", request["body"], request["headers"] | bearer)[0] == 200
        assert ask(port, "/reload")[0] == 401
        assert ask(port, "/model", method="GET")[1]["key"]


def test_results_are_kept_by_content(folder):
    with served(folder) as port:
        first, second = (predictions(ask(port, **form(photo(), photo(1)))) for _ in range(2))
        text = ask(port, "/metrics", method="GET")[1].decode()
    assert first == second
    assert "\ncached_predictions_total 2.0\n" in text
    assert '\npredictions_total{model="linear",version=' in text
    assert '\nrequests_total{path="/predict",status="200"} 2.0\n' in text
    assert '\npredict_latency_seconds{statistic="p99"} ' in text


def test_a_new_model_replaces_the_old_one_without_a_lost_request(tmp_path):
    folder = export(tmp_path / "export")
    with served(folder, api_key="swordfish") as port:
        seen, stop = [], threading.Event()

        def load(seed):
            while not stop.is_set():
                request = form(photo(seed))
                status, content, _ = ask(port, "/predict", request["body"], request["headers"] | KEY)
                seen.append(content["predictions"][0]["version"] if status == 200 else (status, content))

        clients = [threading.Thread(target=load, args=(seed,)) for seed in range(4)]
        for client in clients:
            client.start()
        try:
            old = ask(port, "/model", method="GET")[1]["version"]
            export(folder, seed=1)
            new = ask(port, "/reload", headers=KEY)[1]["version"]
            (folder / "model.onnx").write_bytes(b"damaged")
            status, content, _ = ask(port, "/reload", headers=KEY)
            assert (status, content["detail"][:24]) == (409, "The present model stays:")
            assert ask(port, "/ready", method="GET")[1]["version"] == new
            assert ask(port, "/rollback", headers=KEY)[1]["version"] == old
            assert ask(port, "/rollback", headers=KEY)[1]["version"] == new
            time.sleep(0.1)
        finally:
            stop.set()
            for client in clients:
                client.join()
    assert old != new
    assert set(seen) == {old, new}
    assert len(seen) > 10


def as_files(images):
    files = [io.BytesIO() for _ in images]
    for file, image in zip(files, images, strict=True):
        Image.fromarray(image[..., 0]).save(file, "png")
    return [file.getvalue() for file in files]


def test_digits_that_look_otherwise_are_seen(tmp_path):
    """A service knows its training data: other digits of the same kind are nothing new, darker ones are."""
    digits = (load_digits().images * 15.9).astype(np.uint8)[..., None]
    inputs = IMAGES | {"shape": [1, 8, 8], "mean": [0.3], "std": [0.4]}
    card = Card("classification", "images", CLASSES, inputs, {"kind": "classes"}, model="linear")
    export(tmp_path, card=card, width=64)
    predicted = Predictor.open(tmp_path).predict(digits[900:1200])
    replace(card, reference=refer(card, [preprocess(card, digits[:900])], predicted)).write(tmp_path)

    def moved(images):
        with served(tmp_path, lambda made: setattr(made.state.service.batcher.model.drift, "hurried", False)) as port:
            assert b"100 are needed" in ask(port, "/drift", method="GET")[1]
            files = as_files(images)
            for start in range(0, len(files), 32):
                assert ask(port, **form(*files[start : start + 32]))[0] == 200
            page, text = (ask(port, path, method="GET")[1].decode() for path in ("/drift", "/metrics"))
            assert serve.figures(port)["held_bytes"] == 0  # what benchmark.py reads of it
        values = dict(re.findall(r'\ndrifted{feature="([^"]+)",[^}]+} (\S+)', text))
        assert set(values) == {"brightness", "contrast", "detail", "predicted class", "predicted score"}
        names = {name for name, value in values.items() if value == "1.0"}
        assert page.count("<b>moved</b>") == len(names)
        return names

    assert moved(digits[1200:1500]) == set()
    assert {"brightness", "contrast"} <= moved((digits[1200:1500] * 0.7).astype(np.uint8))


def test_a_shadow_is_compared_and_never_answers(tmp_path):
    first, other = export(tmp_path / "a"), export(tmp_path / "b", seed=1)
    photos = [photo(seed) for seed in range(12)]
    expected, others = ([each["class"] for each in Predictor.open(path).predict(photos)] for path in (first, other))
    same = sum(one == two for one, two in zip(expected, others, strict=True))
    with served(first, other=str(other)) as port:
        assert [each["class"] for each in predictions(ask(port, **form(*photos)))] == expected
        counts = {}
        while sum(counts.values()) < 12:
            text = ask(port, "/metrics", method="GET")[1].decode()
            found = re.findall(r'compared_predictions_total{result="([^"]+)"} (\S+)', text)
            counts = {key: float(value) for key, value in found}
        about = ask(port, "/model", method="GET")[1]
    assert 0 < same < 12
    assert counts == {"same": same, "different": 12 - same}
    for version in (about["version"], about["other"]["version"]):
        assert f'predictions_total{{model="linear",version="{version}"}} 12.0' in text
        assert f'answer_seconds_count{{model="linear",version="{version}"}} 1.0' in text


def test_two_models_share_the_requests_and_are_replaced_together(tmp_path):
    first, other = export(tmp_path / "a"), export(tmp_path / "b", seed=1)
    with served(first, other=str(other), share=0.5, api_key="swordfish", cache_mb=0) as port:

        def versions():
            requests = [form(photo(seed, (20, 20))) for seed in range(40)]
            found = [ask(port, "/predict", each["body"], each["headers"] | KEY)[1] for each in requests]
            return [each["predictions"][0]["version"] for each in found]

        about = ask(port, "/model", method="GET")[1]
        before = versions()
        assert versions() == before, "a photo is answered by the same model each time"
        assert set(before) == {about["version"], about["other"]["version"]}
        assert 8 < before.count(about["version"]) < 32
        export(other, seed=2)
        assert ask(port, "/reload", headers=KEY)[1]["version"] == about["version"]
        after = ask(port, "/model", method="GET")[1]
        assert after["other"]["version"] not in before
        assert ask(port, "/rollback", headers=KEY)[0] == 200
        assert versions() == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"share": 0.5}, "another model"), ({"other": "x", "share": 2}, "up to 1"), ({"other": "table"}, "other data")],
)
def test_mistakes_about_a_second_model(folder, tmp_path, monkeypatch, settings, message):
    monkeypatch.chdir(table(tmp_path / "table").parent)
    with pytest.raises(UserError, match=message):
        create_app(Settings(model_path=str(folder), **settings).checked())


def test_without_a_key_nobody_replaces_the_model(port):
    assert ask(port, "/reload")[0] == ask(port, "/rollback")[0] == 404


def table(folder):
    rows = Table({"age": np.array([20.0, 40.0, 60.0]), "town": np.array(["Ulm", "Bern", "Ulm"], object)})
    columns = fit(rows, "paid").to_json()
    inputs = {"shape": [2], "columns": columns, "delimiter": None, "categories": []}
    card = Card("tabular", "tabular", ("no", "yes"), inputs, {"kind": "classes"}, model="linear")
    return export(folder, card=card, width=2, outputs=2)


def test_rows_of_a_table(tmp_path):
    folder = table(tmp_path / "export")
    rows = [{"age": 30, "town": "Bern"}, {"age": None, "town": "Rome"}, {"age": "50", "town": "Ulm"}]
    with served(folder) as port:
        assert predictions(ask(port, **as_json({"rows": rows}))) == Predictor.open(folder).predict(rows)
        example = ask(port, "/model", method="GET")[1]["example"]
        assert example == {"age": 40, "town": "Bern"}
        assert len(predictions(ask(port, **as_json({"rows": [example] * 300})))) == 300
        for wrong, message in [
            ([{"age": 30}], "lacks columns that the network was trained on: 'town'"),
            ([*rows, {"age": "old", "town": "Ulm"}], "Number 4: "),
            ([{"age": 10**400, "town": "x"}], "send a number, a short text or null"),
            ([{"age": [1], "town": "x"}], "send a number, a short text or null"),
            ([5], "not an object"),
        ]:
            status, content, _ = ask(port, **as_json({"rows": wrong}))
            assert (status, message in content["detail"]) == (422, True), content
        assert ask(port, **form(photo()))[0] == 415


def test_arrays_and_missing_numbers_become_json():
    class_map = np.arange(6, dtype=np.uint8).reshape(2, 3)
    made = to_json({"class_map": class_map, "classes": ({"score": float("nan")},)})
    assert made["classes"] == [{"score": None}]
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(made["class_map"])))), class_map)


def test_every_format_is_measured():
    for kind in ("jpeg", "png", "webp", "bmp", "gif", "tiff"):
        assert measure_image(photo(kind=kind), 20_000) == 120 * 90


def start(*command, **environment):
    settings = os.environ | {"PYTHONPATH": str(TEMPLATE)} | environment
    return subprocess.Popen(
        [sys.executable, *map(str, command)], cwd=TEMPLATE, env=settings, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="SIGTERM")
def test_sigterm_lets_requests_end(folder):
    process = start("scripts/serve.py", folder, "--port", 0, "--cache-mb", 0)
    line = process.stdout.readline()
    port = int(line.partition("127.0.0.1:")[2].split()[0])
    while ask_ready(port) != 200:
        time.sleep(0.02)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    request = form(*[photo(seed, (400, 300)) for seed in range(32)])
    connection.request("POST", "/predict", request["body"], request["headers"])
    time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    answer = connection.getresponse()
    assert answer.status == 200
    assert len(json.loads(answer.read())["predictions"]) == 32
    said, _ = process.communicate(timeout=20)
    assert (process.returncode, said) == (143, "")


def ask_ready(port):
    try:
        return ask(port, "/ready", method="GET")[0]
    except OSError:
        return 0


def test_mistakes_at_the_start_are_one_sentence(folder, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        busy = start("scripts/serve.py", folder, "--port", taken.getsockname()[1])
        missing = start("-c", "import src.api", MODEL_PATH=str(tmp_path / "none"))
        wrong = start("-c", "import src.api", SERVE_QUEUE="many")
        for process, message in ((busy, "choose another --port"), (missing, "does not exist"), (wrong, "SERVE_QUEUE")):
            said, _ = process.communicate(timeout=30)
            assert process.returncode == 2
            assert said.startswith("error: ")
            assert message in said
            assert said.count("\n") == 1


def test_no_framework_is_imported(folder):
    code = "import sys, src.api; print([n for n in ('torch', 'paddle', 'omegaconf', 'matplotlib') if n in sys.modules])"
    said, _ = start("-c", code, MODEL_PATH=str(folder)).communicate(timeout=30)
    assert said == "[]\n"


def test_the_benchmark_measures_the_service_beside_the_network(folder, tmp_path, capsys):
    result = serve.measure(folder, 0.1, 2)
    assert list(result["rows"]) == ["session.run", "predict", "service, 1 client", "service, 2 clients"]
    for row in result["rows"].values():
        assert row["requests"] > 0 and row["errors"] == 0
        assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]
    assert result["rows"]["service, 1 client"]["cpu_ms"] >= 0 and result["memory_mib"] > 20
    serve.print_rows(result)
    assert "service, 2 clients" in capsys.readouterr().out
    serve.draw(result, tmp_path / "serve.png")
    assert Image.open(tmp_path / "serve.png").width > 500


def test_the_newest_export_is_found(tmp_path):
    with pytest.raises(UserError, match="holds no export"):
        newest_export(tmp_path)
    for age, name in enumerate(("new", "old")):
        card = export(tmp_path / name / "export") / "card.json"
        os.utime(card, (1e9 - age, 1e9 - age))
    assert newest_export(tmp_path) == tmp_path / "new" / "export"


@pytest.mark.skipif(not CHROMIUM, reason="no browser")
def test_the_page_shows_what_a_dropped_photo_is(folder, tmp_path):
    content = base64.b64encode(photo()).decode()
    drop = f"""<script>fetch("data:image/png;base64,{content}").then((r) => r.blob()).then((blob) => {{
      const event = new DragEvent("drop", {{dataTransfer: new DataTransfer()}});
      event.dataTransfer.items.add(new File([blob], "p.png"));
      $("drop").dispatchEvent(event);
    }});</script>"""

    def with_drop(made):
        from fastapi.responses import HTMLResponse

        page = Path(app.PAGE).read_text("utf-8") + drop
        made.get("/trial")(lambda: HTMLResponse(page, headers={"Content-Security-Policy": app.POLICY}))

    with served(folder, with_drop) as port:
        [expected] = predictions(ask(port, **form(photo())))
        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"]
        command += ["--virtual-time-budget=4000", "--dump-dom", f"http://127.0.0.1:{port}/trial"]
        for _ in range(5):  # virtual time does not wait for the thread that decodes the photo
            page = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
            if "<canvas" in page:
                break
    assert "linear: classification</h1>" in page
    assert f"<b>{expected['class']}</b>" in page
    assert "<canvas" in page and 'role="alert"></p>' in page

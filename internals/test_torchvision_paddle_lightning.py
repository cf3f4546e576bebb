"""Networks of torchvision and paddle.vision by name: lists, weights served on loopback, what does not fit."""

import io
import re
import subprocess
import sys
import threading
from functools import partial
from hashlib import sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import paddle
import pytest
import torch
import torchvision

from paths import TEMPLATE
from src.kit.config import UserError
from src.kit.training import build_model
from src.kit.training.networks import weights_origin
from tests.support import model_config

MODELS = TEMPLATE / "src/models"


def test_the_lists_are_the_libraries():
    assert (MODELS / "lightning/torchvision.txt").read_text("utf-8").split() == torchvision.models.list_models(
        module=torchvision.models
    )
    names = {name for name in paddle.vision.models.__all__ if name.islower()} - {"googlenet"}  # has three outputs
    assert set((MODELS / "paddle/paddle_vision.txt").read_text("utf-8").split()) == names


MISSPELT = """
import sys
from src.kit.config import load_config
for words in (["model=torchvision", "model.name=convnext_tinny"],
              ["framework=paddle", "model=paddle_vision", "model.name=resnet5"]):
    try:
        load_config(words)
    except Exception as error:
        print(error)
assert not {"torch", "paddle"} & set(sys.modules)
"""


def test_a_misspelt_name_is_answered_without_a_framework():
    done = subprocess.run([sys.executable, "-c", MISSPELT], cwd=TEMPLATE, capture_output=True, text=True, check=True)
    assert "torchvision has no network 'convnext_tinny'. Did you mean convnext_tiny" in done.stdout
    assert "paddle_vision has no network 'resnet5'. Did you mean" in done.stdout


@pytest.mark.parametrize(
    ("framework", "keys", "size", "message"),
    [
        (
            "lightning",
            {"name": "vit_b_16"},
            33,
            "torchvision cannot build vit_b_16 for images of 33 pixels (Input",
        ),
        ("lightning", {"name": "resnet18", "dropout": 0.1}, 32, "unexpected keyword argument 'dropout'"),
        ("lightning", {"name": "resnet18.V7", "pretrained": True}, 32, "Unknown tag of torchvision's resnet18 'V7'."),
        ("paddle", {"name": "alexnet"}, 16, "Paddle cannot build alexnet for images of 16 pixels ("),
        (
            "paddle",
            {"name": "mobilenet_v1", "pretrained": True},
            32,
            "There are no pretrained weights for 'mobilenet_v1'",
        ),
    ],
)
def test_what_does_not_fit_is_one_sentence(framework, keys, size, message):
    option = {"lightning": "torchvision", "paddle": "paddle_vision"}[framework]
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        build_model(model_config(framework, option, **keys), 3, 3, size)
    assert "\n" not in str(caught.value)


def test_published_weights_give_torchvisions_logits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    published = torchvision.models.mobilenet_v3_small().eval()
    with torch.no_grad():
        for parameter in published.parameters():  # a head that starts at almost nothing would hide everything
            parameter.add_(0.02 * torch.randn_like(parameter))
    content = io.BytesIO()
    torch.save(published.state_dict(), content)
    name = f"small-{sha256(content.getvalue()).hexdigest()[:8]}.pth"
    (tmp_path / name).write_bytes(content.getvalue())
    (tmp_path / "small-00000000.pth").write_bytes(content.getvalue())
    quiet = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(quiet, directory=tmp_path))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("DATASET_MIRROR", raising=False)
    entry = torchvision.models.MobileNet_V3_Small_Weights.DEFAULT.value
    config = model_config("lightning", "torchvision", name="mobilenet_v3_small.IMAGENET1K_V1", pretrained=True)
    images = torch.randn(2, 3, 64, 64)
    try:
        monkeypatch.setattr(entry, "url", f"http://127.0.0.1:{server.server_port}/{name}")
        network = build_model(config, 1000, 3, 64).eval()
        fewer = build_model(config, 5, 1, 64).state_dict()
        origin = weights_origin(config)
        monkeypatch.setattr(entry, "url", f"http://127.0.0.1:{server.server_port}/small-00000000.pth")
        with pytest.raises(UserError, match=r"Cannot download small-0+\.pth: .* has other content than its"):
            build_model(config, 5, 3, 64)
        monkeypatch.setattr(entry, "url", f"http://127.0.0.1:{server.server_port}/none-00000000.pth")
        with pytest.raises(UserError, match=r"Cannot download none-0+\.pth: .*404.*set DATASET_MIRROR to a folder"):
            build_model(config, 5, 3, 64)
        # what the sentence says: fetched by hand into a folder
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "other"))
        monkeypatch.setenv("DATASET_MIRROR", str(tmp_path))
        monkeypatch.setattr(entry, "url", f"https://download.pytorch.org/models/{name}")
        assert build_model(config, 5, 3, 64).state_dict()["classifier.3.weight"].shape == (5, 1024)
    finally:
        server.shutdown()
        server.server_close()
    with torch.no_grad():
        torch.testing.assert_close(network(images), published(images), rtol=1e-4, atol=1e-5)
    stem = published.state_dict()["features.0.0.weight"]
    assert torch.allclose(fewer["features.0.0.weight"], stem.mean(dim=1, keepdim=True) * 3)
    assert torch.equal(fewer["classifier.0.weight"], published.state_dict()["classifier.0.weight"])
    assert fewer["classifier.3.weight"].shape == (5, 1024)
    assert origin["licence"] == "bsd-3-clause"
    assert origin["started_from"].startswith("http")
    swag = model_config("lightning", "torchvision", name="vit_l_16.IMAGENET1K_SWAG_E2E_V1", pretrained=True)
    assert weights_origin(swag)["licence"] == "cc-by-nc-4.0"


@pytest.mark.parametrize("name", ["googlenet", "squeezenet1_1", "shufflenet_v2_x0_5"])
def test_each_kind_of_torchvisions_networks_trains(name: str):
    network = build_model(model_config("lightning", "torchvision", name=name), 3, 1, 64)
    logits = network(torch.zeros(2, 1, 64, 64))
    assert logits.shape == (2, 3)
    logits.sum().backward()


@pytest.mark.parametrize("name", ["mobilenet_v1", "squeezenet1_1", "shufflenet_v2_x0_25"])
def test_each_kind_of_paddles_networks_trains(name: str):
    network = build_model(model_config("paddle", "paddle_vision", name=name), 3, 1, 64)
    logits = network(paddle.zeros([2, 1, 64, 64]))
    assert logits.shape == [2, 3]
    assert np.isfinite(float(logits.sum()))

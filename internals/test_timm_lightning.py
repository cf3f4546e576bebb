"""Networks of timm: names, weights from a hub on loopback, other sizes, and what a run makes of them."""

import json
import logging
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save

from paths import TEMPLATE
from src.kit.config import UserError, load_config
from src.kit.inference import Predictor, read_card
from src.kit.lightning import weights_to_numpy
from src.kit.training import RunPredictor, announce_weights, build_model, find_checkpoint, train
from src.kit.training.networks import weights_origin
from src.kit.weights import save_weights
from tests.support import hub, model_config

LIST = TEMPLATE / "src/models/lightning/timm.txt"


def test_the_list_is_timm_s():
    assert LIST.read_text("utf-8").split() == timm.list_models()


MISSPELT = """
import sys
from src.kit.config import load_config
try:
    load_config(["model=timm", "model.name=convnext_tinny"])
except Exception as error:
    print(error)
assert "torch" not in sys.modules
"""


def test_a_misspelt_name_is_answered_without_torch():
    done = subprocess.run([sys.executable, "-c", MISSPELT], cwd=TEMPLATE, capture_output=True, text=True, check=True)
    assert "timm has no network 'convnext_tinny'. Did you mean convnext_tiny or" in done.stdout
    assert "src/models/lightning/timm.txt lists all" in done.stdout


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("test_vit.foo", "Unknown tag of timm's test_vit 'foo'. Available: r160_in1k."),
        ("beit3_giant_patch14_224", "timm publishes no weights of beit3_giant_patch14_224"),
    ],
)
def test_no_such_weights(name: str, message: str):
    with pytest.raises(UserError, match=re.escape(message)):
        build_model(model_config("lightning", "timm", name=name, pretrained=True), 4, 3, 32)


def test_an_image_size_that_does_not_fit():
    config = model_config("lightning", "timm", name="test_vit")
    with pytest.raises(
        UserError, match=r"cannot build test_vit for images of 33 pixels \(Input height .*image_size=160"
    ):
        build_model(config, 4, 3, 33)


@pytest.mark.parametrize("size", [160, 96])
def test_published_weights_give_timm_s_logits(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    published = timm.create_model("test_vit")
    config = model_config("lightning", "timm", name="test_vit", pretrained=True)
    with hub("timm/test_vit.r160_in1k", save(published.state_dict()), tmp_path, monkeypatch):
        network = build_model(config, 1000, 3, size).eval()
        assert build_model(config, 5, 1, size).eval()(torch.zeros(2, 1, size, size)).shape == (2, 5)
    overlay = {"state_dict": published.state_dict()}
    reference = timm.create_model("test_vit", pretrained=True, pretrained_cfg_overlay=overlay, img_size=size).eval()
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(network(images), reference(images), rtol=1e-4, atol=1e-5)


def test_a_run_starts_the_next_one_and_is_exported(tmp_path: Path):
    keys = ["model=timm", "model.name=test_resnet", "data=digits", "trainer=debug", f"output_dir={tmp_path}"]
    first = train(load_config(keys))
    assert first.path.name.startswith("test_resnet-digits")
    weights = find_checkpoint(first.path, "last") / "model.safetensors"
    second = train(load_config([*keys, "data.classes=['1', '2', '3']", f"model.weights={weights}"]))
    assert read_card(second.path).weights["started_from"] == str(weights)
    exported = second.export(["onnx"])
    network, card = RunPredictor(second.path), read_card(exported)
    arrays = np.random.default_rng(0).normal(size=(5, *card.input["shape"])).astype(np.float32)
    np.testing.assert_allclose(Predictor.open(exported).compute(arrays), network.compute(arrays), atol=1e-4)


def test_a_licence_that_forbids_commerce_is_named(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "train")
    config = model_config("lightning", "timm", name="convnextv2_atto.fcmae_ft_in1k", pretrained=True)
    assert weights_origin(config) == {"started_from": "timm/convnextv2_atto.fcmae_ft_in1k", "licence": "cc-by-nc-4.0"}
    announce_weights("timm/convnextv2_atto.fcmae_ft_in1k", "cc-by-nc-4.0")
    assert "forbids commercial use" in caplog.text
    ours = model_config("lightning", "resnet18", pretrained=True)
    assert weights_origin(ours) == {"started_from": "timm/resnet18.tv_in1k", "licence": "bsd-3-clause"}


@pytest.mark.parametrize(
    ("name", "strides", "more", "sizes"),
    [
        ("deeplab_timm", {"output_stride": 16}, {"width": 16}, (24, 6)),
        ("retinanet_timm", {}, {}, (12, 6, 3)),
        ("mask_rcnn_timm", {}, {"width": 16}, (24, 12, 6, 3)),
    ],
)
def test_encoders_give_timm_s_features_to_other_networks(name, strides, more, sizes, tmp_path, monkeypatch):
    published = timm.create_model("test_convnext")
    config = model_config("lightning", name, encoder="test_convnext", pretrained=True, **more)
    with hub("timm/test_convnext.r160_in1k", save(published.state_dict()), tmp_path, monkeypatch):
        network = build_model(config, 3, 3, 96).eval()
    overlay = {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": published.state_dict()}}
    reference = timm.create_model("test_convnext", features_only=True, **strides, **overlay).eval()
    encoder = network.backbone if name == "deeplab_timm" else network.detector.backbone.body
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        found, every = encoder(images), reference(images)
        assert torch.isfinite(network(images)).all()
    assert [each.shape[2] for each in found] == list(sizes)
    for each, theirs in zip(found[::-1], every[::-1] if len(sizes) > 2 else [every[-1], every[0]], strict=False):
        torch.testing.assert_close(each, theirs)
    assert weights_origin(config)["started_from"] == "timm/test_convnext.r160_in1k"


@pytest.mark.parametrize(
    ("name", "encoder", "strides"),
    [
        ("deeplab_timm", "test_convnext", {"output_stride": 16}),
        ("deeplab_timm", "test_efficientnet", {"output_stride": 16}),
        ("deeplab_timm", "test_resnet", {"output_stride": 16}),
        ("deeplab_timm", "test_mambaout", {}),
        ("retinanet_timm", "test_convnext", {}),
        ("mask_rcnn_timm", "test_convnext", {}),
    ],
)
def test_a_run_of_timm_starts_the_same_encoder(name, encoder, strides, tmp_path, caplog):
    caplog.set_level("INFO", "train")
    trained = build_model(model_config("lightning", "timm", name=encoder), 7, 3, 96)
    save_weights(tmp_path / "model.safetensors", weights_to_numpy(trained), {"classes": json.dumps(["thing"] * 7)})
    config = model_config("lightning", name, encoder=encoder, weights=str(tmp_path / "model.safetensors"))
    network = build_model(config, 3, 3, 96).eval()
    body = network.backbone if name == "deeplab_timm" else network.detector.backbone.body
    overlay = {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": trained.state_dict()}}
    reference = timm.create_model(encoder, features_only=True, **strides, **overlay).eval()
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        for found, expected in zip(body.network(images), reference(images), strict=True):
            torch.testing.assert_close(found, expected)
    assert f"Only the backbone of {name} starts from these weights" in caplog.text


def test_a_run_of_another_network_of_timm_does_not_start_an_encoder(tmp_path):
    trained = build_model(model_config("lightning", "timm", name="convnext_nano"), 7, 3, 32)
    save_weights(tmp_path / "model.safetensors", weights_to_numpy(trained), {})
    config = model_config("lightning", "deeplab_timm", encoder="convnext_tiny", weights=f"{tmp_path}/model.safetensors")
    with pytest.raises(UserError, match=r"do not fit this network's backbone: stages\S+ is missing"):
        build_model(config, 3, 3, 32)


def test_channels_that_come_last_are_put_first():
    network = build_model(model_config("lightning", "deeplab_timm", encoder="test_mambaout", width=16), 3, 3, 64)
    assert [tuple(each.shape[1:]) for each in network.backbone(torch.zeros(1, 3, 64, 64))] == [(16, 16, 16), (64, 2, 2)]


def test_an_encoder_that_does_not_fit_is_one_sentence():
    with pytest.raises(UserError, match=r"timm has no network 'convnext_tinny'\. Did you mean convnext_tiny or"):
        load_config(["task=segmentation", "model=deeplab_timm", "model.encoder=convnext_tinny"])
    config = model_config("lightning", "deeplab_timm", encoder="test_vit")
    with pytest.raises(UserError, match="timm's test_vit has no features at 1/4 of the image's size: choose a network"):
        build_model(config, 4, 3, 64)

"""Every network in PyTorch: shapes, gradients, weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torchvision.models import resnet18

from src.kit.errors import UserError
from src.kit.lightning import weights_to_numpy
from src.kit.training.networks import build_model
from src.kit.weights import save_weights
from tests.support import INPUTS, classifiers, hub, make_clip_small, model_config


@pytest.mark.parametrize(("channels", "size"), INPUTS)
@pytest.mark.parametrize("name", classifiers("lightning"))
def test_forward_and_backward(name: str, channels: int, size: int, monkeypatch):
    make_clip_small(monkeypatch)
    network = build_model(model_config("lightning", name), classes=5, channels=channels, image_size=size)
    logits = network(torch.randn(2, channels, size, size))
    assert logits.shape == (2, 5)
    assert logits.dtype == torch.float32
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 4])).backward()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert torch.isfinite(parameter.grad).all(), parameter_name


def test_smallest_images():
    network = build_model(model_config("lightning", "small_cnn"), classes=10, channels=1, image_size=8)
    assert network(torch.randn(2, 1, 8, 8)).shape == (2, 10)


def test_small_images_keep_their_resolution():
    config = model_config("lightning", "resnet18")
    small = build_model(config, classes=2, channels=3, image_size=32)
    large = build_model(config, classes=2, channels=3, image_size=224)
    assert (small.conv1.kernel_size, small.conv1.stride) == ((3, 3), (1, 1))
    assert (large.conv1.kernel_size, large.conv1.stride) == ((7, 7), (2, 2))
    assert isinstance(small.maxpool, torch.nn.Identity)


@pytest.mark.parametrize("name", ["small_cnn", "resnet18", "efficientnet", "resnet18_attention"])
def test_dropout_acts_only_while_training(name: str):
    torch.manual_seed(0)
    config = model_config("lightning", name, dropout=0.5)
    network = build_model(config, classes=4, channels=3, image_size=8).eval()
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(network(images), network(images))
        for layer in network.modules():
            layer.training = isinstance(layer, torch.nn.Dropout)
        assert not torch.equal(network(images), network(images))


def test_weights_survive_a_round_trip(tmp_path: Path):
    config = model_config("lightning", "small_cnn")
    first = build_model(config, classes=4, channels=3, image_size=16)
    first(torch.randn(4, 3, 16, 16))  # moves BatchNorm's statistics
    save_weights(tmp_path / "model.safetensors", weights_to_numpy(first), {})
    config = model_config("lightning", "small_cnn", weights=str(tmp_path / "model.safetensors"))
    second = build_model(config, classes=4, channels=3, image_size=16)
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(first.eval()(images), second.eval()(images))


def test_numpy_weights_are_a_copy():
    network = build_model(model_config("lightning", "small_cnn"), classes=4, channels=3, image_size=16)
    arrays = weights_to_numpy(network)
    before = arrays["0.weight"].copy()
    with torch.no_grad():
        network[0].weight.zero_()
    np.testing.assert_array_equal(arrays["0.weight"], before)


def test_checkpoint_of_another_model_is_refused(tmp_path: Path):
    other = build_model(model_config("lightning", "resnet18"), classes=4, channels=3, image_size=32)
    save_weights(tmp_path / "model.safetensors", weights_to_numpy(other), {})
    config = model_config("lightning", "small_cnn", weights=str(tmp_path / "model.safetensors"))
    with pytest.raises(UserError, match=r"checkpoint of another model: bn1\.bias is \(64,\) in the file"):
        build_model(config, classes=4, channels=3, image_size=32)


def test_pretrained_and_weights_exclude_each_other():
    config = model_config("lightning", "resnet18", pretrained=True, weights="model.safetensors")
    with pytest.raises(UserError, match="exclude each other"):
        build_model(config, classes=4, channels=3, image_size=32)


def test_heads_must_divide_the_features():
    with pytest.raises(UserError, match=r"model\.heads=3 does not divide the 512 features"):
        build_model(model_config("lightning", "resnet18_attention", heads=3), 4, 3, 32)


def test_pretrained_weights_come_from_the_hub(tmp_path: Path, monkeypatch):
    published = resnet18(weights=None)
    config = model_config("lightning", "resnet18", pretrained=True, stem="imagenet")
    with hub("timm/resnet18.tv_in1k", save(published.state_dict()), tmp_path, monkeypatch):
        network = build_model(config, classes=5, channels=1, image_size=32)
    assert network(torch.zeros(2, 1, 32, 32)).shape == (2, 5)
    assert torch.equal(network.layer4[1].conv2.weight, published.layer4[1].conv2.weight)
    grey = published.conv1.weight.sum(axis=1, keepdims=True)
    torch.testing.assert_close(network.conv1.weight, grey, rtol=1e-4, atol=1e-6)

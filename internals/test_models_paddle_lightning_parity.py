"""The same NumPy weights give the same logits in both frameworks."""

import numpy as np
import paddle
import pytest
import timm
import torch
from safetensors.torch import save

import src.kit.lightning as lightning_kit
import src.kit.paddle as paddle_kit
from src.kit.errors import UserError
from src.kit.training.networks import build_model
from tests.support import CONFIGS, INPUTS, classifiers, hub, make_clip_small, model_config, models

# options of one framework: networks of its libraries
LIBRARIES = {path.stem for folder in ("lightning", "paddle") for path in CONFIGS.rglob(f"{folder}/*.yaml")}
SHARED = [name for name in classifiers("paddle") if name not in LIBRARIES]


def both(name: str, channels: int, size: int):
    """The network in PyTorch and in Paddle, in evaluation mode, with the same weights and lively BatchNorm statistics.

    Weights are redrawn by fan-in, so that the logits stay near 1 and a tolerance of 1e-4 means something.
    """
    ours = build_model(model_config("lightning", name), 5, channels, size).eval()
    theirs = build_model(model_config("paddle", name), 5, channels, size)
    theirs.eval()
    generator = np.random.default_rng(0)
    arrays = {}
    for key, array in lightning_kit.weights_to_numpy(ours).items():
        noise = generator.standard_normal(array.shape, dtype=np.float32)
        if key.endswith("running_var"):
            arrays[key] = 1 + 0.1 * np.abs(noise)
        elif array.ndim > 1:
            arrays[key] = noise / np.sqrt(np.prod(array.shape[1:], dtype=np.float32))
        else:
            arrays[key] = array + 0.1 * noise
    lightning_kit.weights_from_numpy(ours, arrays)
    paddle_kit.weights_from_numpy(theirs, arrays)
    return ours, theirs, arrays


def test_both_frameworks_have_the_same_networks():
    ours, theirs = (set(models(framework)) - LIBRARIES for framework in ("lightning", "paddle"))
    assert ours == theirs
    assert len(SHARED) == 9


def test_a_model_of_the_other_framework_names_that_framework():
    config = model_config("paddle", "retinanet_timm")
    with pytest.raises(UserError, match="model=retinanet_timm exists for lightning only: set framework=lightning"):
        build_model(config, 5, 3, 32)
    config.model.file = "retinanett"
    with pytest.raises(UserError, match="Unknown model 'retinanett'"):
        build_model(config, 5, 3, 32)


@pytest.mark.parametrize(("channels", "size"), INPUTS)
@pytest.mark.parametrize("name", SHARED)
def test_same_weights_give_the_same_logits(name: str, channels: int, size: int, monkeypatch):
    make_clip_small(monkeypatch)
    ours, theirs, arrays = both(name, channels, size)
    images = np.random.default_rng(1).standard_normal((2, channels, size, size), dtype=np.float32)
    with torch.no_grad(), paddle.no_grad():
        a, b = ours(torch.tensor(images)).numpy(), theirs(paddle.to_tensor(images)).numpy()
    assert a.std() > 0.01
    np.testing.assert_allclose(a, b, atol=1e-4)
    back = paddle_kit.weights_to_numpy(theirs)
    assert list(back) == list(arrays)
    assert all(np.array_equal(back[key], arrays[key]) for key in arrays)


def test_speed_net_whitens_the_first_batch_that_it_trains_on_alike_in_both_frameworks():
    networks = [build_model(model_config(framework, "speed_net"), 5, 3, 16) for framework in ("lightning", "paddle")]
    generator = np.random.default_rng(0)
    mixed = np.einsum("ck,bkhw->bchw", generator.standard_normal((3, 3)), generator.standard_normal((64, 3, 16, 16)))
    first, other = mixed.astype(np.float32), 2 * mixed[::-1].astype(np.float32)
    found = []
    for network, tensor in zip(networks, (torch.tensor, paddle.to_tensor), strict=True):
        network.eval()
        assert not network[0](tensor(first)).detach().numpy().any()
        network.train()
        whitened = network[0](tensor(first))
        network(tensor(other))
        flat = whitened.detach().numpy().transpose(1, 0, 2, 3).reshape(24, -1)
        np.testing.assert_allclose(flat[:12] @ flat[:12].T / flat.shape[1], np.eye(12), atol=0.02)
        np.testing.assert_allclose(flat[12:], -flat[:12], atol=1e-6)
        assert np.array_equal(whitened.detach().numpy(), network[0](tensor(first)).detach().numpy()), "it stays"
        with torch.autocast("cpu", torch.bfloat16), paddle.amp.auto_cast(dtype="bfloat16"):  # Paddle's: on a GPU only
            assert np.array_equal(whitened.detach().numpy(), network[0](tensor(first)).detach().numpy())
        found.append(np.abs(flat))  # the sign of an axis is chance
    np.testing.assert_allclose(*found, atol=1e-3)


def test_resnet18_logits_on_imagenet_size():
    ours, theirs, _ = both("resnet18", channels=3, size=224)
    images = np.random.default_rng(1).standard_normal((1, 3, 224, 224), dtype=np.float32)
    with torch.no_grad(), paddle.no_grad():
        a, b = ours(torch.tensor(images)).numpy(), theirs(paddle.to_tensor(images)).numpy()
    assert a.std() > 0.01
    np.testing.assert_allclose(a, b, atol=1e-4)


def test_batch_norm_learns_at_the_same_pace():
    ours, theirs, _ = both("small_cnn", channels=3, size=32)
    images = np.random.default_rng(1).standard_normal((8, 3, 32, 32), dtype=np.float32)
    ours.train()
    theirs.train()
    ours(torch.tensor(images))
    theirs(paddle.to_tensor(images))
    a, b = lightning_kit.weights_to_numpy(ours), paddle_kit.weights_to_numpy(theirs)
    np.testing.assert_allclose(a["1.running_mean"], b["1.running_mean"], atol=1e-5)
    # PyTorch's running variance is unbiased and Paddle's is not: n / (n - 1) apart, n the values per channel.
    np.testing.assert_allclose(a["1.running_var"], b["1.running_var"], rtol=1e-3)


@pytest.mark.parametrize("size", [24, 32, 72])
def test_maps_of_every_size_are_averaged_to_the_grid(size):
    ours, theirs, _ = both("small_cnn", channels=3, size=32)  # whose grid is 4x4: of 3x3, 4x4 and 9x9 cells
    images = np.random.default_rng(1).standard_normal((2, 3, size, size), dtype=np.float32)
    with torch.no_grad(), paddle.no_grad():
        cells = torch.nn.functional.adaptive_avg_pool2d(ours[:9](torch.tensor(images)), 4)
        found, paddles = ours(torch.tensor(images)), theirs(paddle.to_tensor(images)).numpy()
        torch.testing.assert_close(found, ours[10:](cells), rtol=0, atol=0)
    np.testing.assert_allclose(found.numpy(), paddles, atol=1e-4)


def test_published_weights_of_a_vision_transformer_give_timm_s_logits_at_another_size(tmp_path, monkeypatch):
    torch.manual_seed(0)
    published = timm.create_model("vit_tiny_patch16_224").state_dict()
    published = {name: array + 0.02 * torch.randn_like(array) for name, array in published.items()}
    networks = []
    with hub("timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k", save(published), tmp_path, monkeypatch):
        for framework in ("lightning", "paddle"):
            networks.append(build_model(model_config(framework, "vit", pretrained=True), 1000, 3, 96))
            networks[-1].eval()
    overlay = {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": published}}
    reference = timm.create_model("vit_tiny_patch16_224", img_size=96, **overlay).eval()
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        expected, found = reference(images).numpy(), networks[0](images).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(networks[1](paddle.to_tensor(images.numpy())).numpy(), expected, atol=1e-4)
    with pytest.raises(UserError, match=r"model\.patch=16 is larger than data\.image_size=8"):
        build_model(model_config("paddle", "vit"), 10, 1, 8)

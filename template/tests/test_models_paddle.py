"""Every network in Paddle: shapes, gradients, weights."""

from pathlib import Path

import numpy as np
import paddle
import pytest
from safetensors.numpy import save

from src.kit.errors import UserError
from src.kit.paddle import weights_to_numpy
from src.kit.training.networks import build_model
from src.kit.weights import save_weights
from tests.support import INPUTS, classifiers, hub, make_clip_small, model_config


@pytest.mark.parametrize(("channels", "size"), INPUTS)
@pytest.mark.parametrize("name", classifiers("paddle"))
def test_forward_and_backward(name: str, channels: int, size: int, monkeypatch):
    make_clip_small(monkeypatch)
    network = build_model(model_config("paddle", name), classes=5, channels=channels, image_size=size)
    logits = network(paddle.randn([2, channels, size, size]))
    assert logits.shape == [2, 5]
    assert logits.dtype == paddle.float32
    paddle.nn.functional.cross_entropy(logits, paddle.to_tensor([0, 4])).backward()
    for parameter_name, parameter in network.named_parameters():
        if parameter_name.endswith(("._mean", "._variance")):
            continue  # Paddle counts BatchNorm's statistics as parameters
        assert parameter.grad is not None, parameter_name
        assert paddle.isfinite(parameter.grad).all(), parameter_name


def test_smallest_images():
    network = build_model(model_config("paddle", "small_cnn"), classes=10, channels=1, image_size=8)
    assert network(paddle.randn([2, 1, 8, 8])).shape == [2, 10]


def test_small_images_keep_their_resolution():
    config = model_config("paddle", "resnet18")
    small = build_model(config, classes=2, channels=3, image_size=32)
    large = build_model(config, classes=2, channels=3, image_size=224)
    assert small.conv1.weight.shape == [64, 3, 3, 3]
    assert large.conv1.weight.shape == [64, 3, 7, 7]
    assert isinstance(small.maxpool, paddle.nn.Identity)


@pytest.mark.parametrize("name", ["small_cnn", "resnet18", "efficientnet", "resnet18_attention"])
def test_dropout_acts_only_while_training(name: str):
    paddle.seed(0)
    config = model_config("paddle", name, dropout=0.5)
    network = build_model(config, classes=4, channels=3, image_size=8)
    network.eval()
    images = paddle.randn([2, 3, 8, 8])
    with paddle.no_grad():
        assert paddle.equal_all(network(images), network(images))
        for layer in network.sublayers():
            layer.training = isinstance(layer, paddle.nn.Dropout)
        assert not paddle.equal_all(network(images), network(images))


def test_whole_images_lose_a_residual_branch_while_training():
    from src.models.paddle.efficientnet import MBConv

    paddle.seed(0)
    block = MBConv(1, 3, 1, inputs=4, outputs=4, drop=0.5)
    images = paddle.ones([64, 4, 2, 2])
    block.eval()
    branch = block(images) - images
    block.train()
    for layer in block.sublayers():
        layer.eval()
    ratio = ((block(images) - images) / branch).numpy()
    assert np.all(np.isclose(ratio, 0, atol=1e-3) | np.isclose(ratio, 2, atol=1e-3))
    dropped = np.isclose(ratio, 0, atol=1e-3).reshape(64, -1)
    assert np.all(dropped == dropped[:, :1])
    assert 16 < dropped[:, 0].sum() < 48


def test_initial_values_follow_pytorch():
    paddle.seed(0)
    network = build_model(model_config("paddle", "resnet18"), classes=1000, channels=3, image_size=224)
    arrays = weights_to_numpy(network)
    assert arrays["layer4.0.conv1.weight"].std() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.02)
    assert np.abs(arrays["fc.weight"]).max() == pytest.approx(512**-0.5, rel=0.01)
    assert np.abs(arrays["fc.bias"]).max() == pytest.approx(512**-0.5, rel=0.05)


def test_weights_survive_a_round_trip(tmp_path: Path):
    config = model_config("paddle", "small_cnn")
    first = build_model(config, classes=4, channels=3, image_size=16)
    first(paddle.randn([4, 3, 16, 16]))  # moves BatchNorm's statistics
    save_weights(tmp_path / "model.safetensors", weights_to_numpy(first), {})
    config = model_config("paddle", "small_cnn", weights=str(tmp_path / "model.safetensors"))
    second = build_model(config, classes=4, channels=3, image_size=16)
    first.eval()
    second.eval()
    images = paddle.randn([2, 3, 16, 16])
    assert paddle.equal_all(first(images), second(images))


def test_checkpoint_of_another_model_is_refused(tmp_path: Path):
    other = build_model(model_config("paddle", "resnet18"), classes=4, channels=3, image_size=32)
    save_weights(tmp_path / "model.safetensors", weights_to_numpy(other), {})
    config = model_config("paddle", "small_cnn", weights=str(tmp_path / "model.safetensors"))
    with pytest.raises(UserError, match=r"checkpoint of another model: bn1\.bias is \(64,\) in the file"):
        build_model(config, classes=4, channels=3, image_size=32)


def test_heads_must_divide_the_features():
    with pytest.raises(UserError, match=r"model\.heads=3 does not divide the 512 features"):
        build_model(model_config("paddle", "resnet18_attention", heads=3), 4, 3, 32)


def test_pretrained_weights_come_from_the_hub(tmp_path: Path, monkeypatch):
    network = build_model(model_config("paddle", "resnet18"), classes=1000, channels=3, image_size=224)
    generator = np.random.default_rng(0)
    published = {
        name: generator.random(array.shape, dtype=np.float32) for name, array in weights_to_numpy(network).items()
    }
    published["bn1.num_batches_tracked"] = np.array(7)  # as in the files that PyTorch writes
    config = model_config("paddle", "resnet18_attention", pretrained=True)
    with hub("timm/resnet18.tv_in1k", save(published), tmp_path, monkeypatch):
        network = build_model(config, classes=5, channels=3, image_size=128)
    assert np.array_equal(network.layer4[1].conv2.weight.numpy(), published["layer4.1.conv2.weight"])
    assert np.array_equal(network.conv1.weight.numpy(), published["conv1.weight"])

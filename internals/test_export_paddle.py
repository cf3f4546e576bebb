"""Exported networks compute what Paddle computes, for any batch."""

import paddle
import pytest
from paddle import nn

from exporting import NETWORKS, Exported, agree, build, inputs, liven
from src.kit.errors import UserError
from src.kit.paddle import weights_from_numpy, weights_to_numpy
from src.kit.training.exports import export_network


@pytest.mark.parametrize("name", NETWORKS)
def test_onnx_gives_the_networks_outputs(name, tmp_path):
    network = build("paddle", name)
    weights_from_numpy(network, liven(weights_to_numpy(network)))
    exported = Exported("paddle", network, name, tmp_path)
    for batch in (1, 2, 5):
        images = inputs(name, batch)
        with paddle.no_grad():
            agree(exported(images), network(paddle.to_tensor(images)).numpy(), name)


def test_paddles_own_program_runs_without_the_projects_code(tmp_path):
    network = build("paddle", "small_cnn")
    export_network(network, "paddle", (1, 28, 28), tmp_path, ("paddle",))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "model.pdiparams"]
    program = paddle.jit.load(str(tmp_path / "model"))
    images = paddle.to_tensor(inputs("small_cnn", 3))
    with paddle.no_grad():
        assert float((program(images) - network(images)).abs().max()) < 1e-5


class Mixed(nn.Layer):
    """Operators that no network of ours has."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Conv2DTranspose(3, 4, 3, stride=2, padding=1, output_padding=1)
        self.pool = nn.AdaptiveAvgPool2D((3, 5))
        self.layers = nn.Sequential(nn.GELU(), nn.Hardswish(), nn.LeakyReLU(), nn.Hardsigmoid(), nn.AvgPool2D(2, 1, 1))

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        x = self.layers(self.up(images))
        first, second, third = x.split([1, 1, 2], axis=1)
        mixed = paddle.concat([first - second, paddle.maximum(first, second), third.clip(0.1, 0.5)], axis=1)
        sums = paddle.log(self.pool(mixed).exp() + 1).sum(axis=[2, 3]) / (mixed.mean(axis=[2, 3]).abs() + 1)
        return nn.functional.normalize(sums, axis=1) + sums.norm(p=1, axis=1, keepdim=True)


class Rows(nn.Layer):
    """Sizes that Paddle computes when it runs, and several outputs."""

    def forward(self, images: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        rows = images.flatten(2).transpose([0, 2, 1])
        best, places = rows.topk(2, axis=1)
        return best.unsqueeze(1).squeeze([1]), places.astype("float32")


@pytest.mark.parametrize("kind", [Mixed, Rows])
def test_other_operators(kind, tmp_path):
    paddle.seed(0)
    network = kind()
    network.eval()
    export_network(network, "paddle", (3, 8, 8), tmp_path)
    import onnxruntime

    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for batch in (1, 3):
        images = inputs("yolov10n", batch)[:, :, :8, :8]
        expected = network(paddle.to_tensor(images))
        expected = expected if isinstance(expected, tuple) else (expected,)
        for ours, theirs in zip(session.run(None, {"input": images}), expected, strict=True):
            assert abs(ours - theirs.numpy()).max() < 1e-5


class Choosy(nn.Layer):
    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        return images if bool(images.sum() > 0) else -images


class Norm(nn.Layer):
    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        return images.norm(p=3, axis=1)


class Rare(nn.Layer):
    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        return paddle.digamma(images)


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (Choosy(), r"Paddle cannot export Choosy \(.+\): its forward must not choose by values"),
        (Norm(), r"The network has a norm other than L1 or L2 along one dimension, which cannot be exported to ONNX"),
        (Rare(), "The network uses Paddle's operator digamma, which cannot be exported to ONNX"),
        (nn.GELU(approximate=True), r"The network has gelu\(approximate=True\), which cannot be exported to ONNX"),
    ],
)
def test_what_cannot_be_exported_is_one_sentence(network, said, tmp_path):
    with pytest.raises(UserError, match=said):
        export_network(network, "paddle", (3, 8, 8), tmp_path)
    assert not list(tmp_path.iterdir())

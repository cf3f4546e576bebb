"""The same NumPy weights give the same outputs for a table's rows in both frameworks."""

import numpy as np
import paddle
import pytest
import torch

import src.kit.lightning as lightning_kit
import src.kit.paddle as paddle_kit
from src.kit.errors import UserError
from src.kit.tabular.preprocessing import embedding_width
from src.models.lightning.tabular.tabular_mlp import build as tabular_mlp
from src.models.paddle.tabular.tabular_mlp import build as paddle_mlp
from src.tasks.losses.lightning.tabular.mse import build as build_loss
from src.tasks.losses.paddle.tabular.mse import build as paddle_loss

KNOTS = ((-1.0, 0.0, 0.5), (), (-0.3, 0.2, 0.9, 1.5), (), ())
SIZES = {
    "classes": 3,
    "channels": 7,
    "image_size": 1,
    "cardinalities": (4, 200),
    "knots": KNOTS,
    "dropout": 0.5,
}


def both(**changes):
    ours, theirs = tabular_mlp(**{**SIZES, **changes}).eval(), paddle_mlp(**{**SIZES, **changes})
    theirs.eval()
    return ours, theirs


def rows() -> np.ndarray:
    random = np.random.default_rng(0)
    codes = [random.integers(0, count, 32) for count in SIZES["cardinalities"]]
    return np.column_stack([random.normal(size=(32, 5)), *codes]).astype(np.float32)


@pytest.mark.parametrize("hidden", [[64, 32], []])
def test_same_weights_give_the_same_outputs(hidden):
    ours, theirs = both(hidden=hidden)
    arrays = lightning_kit.weights_to_numpy(ours)
    random = np.random.default_rng(1)
    arrays = {name: (0.3 * random.normal(size=array.shape)).astype(np.float32) for name, array in arrays.items()}
    assert arrays["embeddings.0.weight"].shape == (4, 2)
    assert arrays["embeddings.1.weight"].shape == (200, 50)
    lightning_kit.weights_from_numpy(ours, arrays)
    paddle_kit.weights_from_numpy(theirs, arrays)
    with torch.no_grad(), paddle.no_grad():
        a, b = ours(torch.tensor(rows())).numpy(), theirs(paddle.to_tensor(rows())).numpy()
        pixel = ours(torch.tensor(rows()[:, :, None, None])).numpy()
    assert a.shape == (32, 3)
    assert a.std() > 0.01
    np.testing.assert_allclose(a, b, atol=1e-5)
    np.testing.assert_array_equal(a, pixel)
    back = paddle_kit.weights_to_numpy(theirs)
    assert list(back) == list(arrays)
    assert all(np.array_equal(back[key], arrays[key]) for key in arrays)


def test_both_start_alike_and_an_unknown_category_says_nothing():
    for arrays in (lightning_kit.weights_to_numpy(both()[0]), paddle_kit.weights_to_numpy(both()[1])):
        assert not arrays["embeddings.1.weight"][0].any()
        assert arrays["embeddings.1.weight"][1:].std() == pytest.approx(0.1, rel=0.05)
        bound = (57 + 5) ** -0.5
        assert 0.9 * bound < np.abs(arrays["layers.0.weight"]).max() <= bound
        assert arrays["layers.0.weight"].std() == pytest.approx(bound / 3**0.5, rel=0.05)


def test_bins_say_how_far_a_number_has_come():
    values = np.array([-9, -1, -0.5, 0, 0.25, 0.5, 9], np.float32)
    wanted = np.column_stack([np.clip(values + 1, 0, 1), np.clip(values / 0.5, 0, 1)])
    given = rows()[:7]
    given[:, 0] = values
    weights = np.eye(SIZES["channels"] - 2 + 5 + 52, dtype=np.float32)  # each output is one input of the first layer
    for network, kit, convert in zip(
        both(hidden=[], classes=len(weights)),
        (lightning_kit, paddle_kit),
        (torch.tensor, paddle.to_tensor),
        strict=True,
    ):
        arrays = kit.weights_to_numpy(network)
        kit.weights_from_numpy(network, arrays | {"layers.0.weight": weights, "layers.0.bias": 0 * weights[0]})
        seen = network(convert(given)).detach().numpy()
        np.testing.assert_array_equal(seen[:, :5], given[:, :5])
        np.testing.assert_allclose(seen[:, 5:7], wanted, atol=1e-6)
        assert (seen[:, 7:10].min(), seen[:, 7:10].max()) == (0, 1)
    plain, _ = both(piecewise=False)
    assert plain.layers[0].in_features == 57


def test_same_regression_loss_of_the_first_column():
    random = np.random.default_rng(2)
    outputs, targets = random.normal(size=(8, 1)).astype(np.float32), random.normal(size=(8, 3)).astype(np.float32)
    first = build_loss(None)(torch.tensor(outputs), torch.tensor(targets)).item()
    second = paddle_loss(None)(paddle.to_tensor(outputs), paddle.to_tensor(targets)).item()
    assert first == pytest.approx(((outputs[:, 0] - targets[:, 0]) ** 2).mean(), rel=1e-5)
    assert second == pytest.approx(first, rel=1e-5)


def test_embedding_widths():
    assert [embedding_width(count) for count in (1, 2, 3, 10, 99, 1001)] == [1, 1, 2, 5, 50, 50]


@pytest.mark.parametrize("network", [tabular_mlp, paddle_mlp])
def test_a_layer_without_neurons(network):
    with pytest.raises(UserError, match=r"model\.hidden must be a list of layer widths above 0"):
        network(**SIZES, hidden=[64, 0])

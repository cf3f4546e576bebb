"""Without the channels that give zeros a network computes the same as with them, in both frameworks."""

import json

import numpy as np
import paddle
import pytest
import torch

import src.kit.lightning as lightning_kit
import src.kit.paddle as paddle_kit
from exporting import liven
from src.kit.compression import find_groups, find_rules, multiplications, prune_channels
from src.kit.errors import UserError
from src.kit.training.networks import build_model
from src.kit.weights import save_weights
from tests.support import model_config

SIZE = 32
# model -> changed keys, and the share of the parameters that is left: each kind of block
NETWORKS = {
    "small_cnn": ({}, 0.36),
    "resnet50": ({}, 0.47),
    "resnet18_attention": ({}, 0.56),
    "efficientnet": ({}, 0.58),
    "deeplab_mobilenet_v2": ({"width": 16}, 0.57),
    "tabular_mlp": ({}, 0.5),
}


def build(framework: str, name: str, classes: int = 5, **changes):
    rows = {"cardinalities": (3, 4), "knots": ((-1.0, 0.0, 1.0), (), (), (), ())} if name == "tabular_mlp" else {}
    channels, size = (7, 1) if rows else (3, SIZE)
    network = build_model(model_config(framework, name, **changes), classes, channels, size, **rows)
    network.eval()
    return network


def silence(arrays: dict[str, np.ndarray], rules) -> dict[str, np.ndarray]:
    """The same weights, by which every second channel of the groups gives zeros."""
    silent = {name: array.copy() for name, array in arrays.items()}
    groups = list(find_groups([name.removesuffix(".weight") for name in arrays if name.endswith(".weight")], rules))
    assert groups
    for group in groups:
        for name in group.makers:
            for part in ("weight", "bias"):
                silent.get(f"{name}.{part}", np.empty(0))[::2] = 0
    return silent


def compute(framework: str, network, images: np.ndarray) -> np.ndarray:
    if framework == "lightning":
        with torch.no_grad():
            return network(torch.tensor(images)).numpy()
    with paddle.no_grad():
        return network(paddle.to_tensor(images)).numpy()


@pytest.mark.parametrize("name", NETWORKS)
def test_both_frameworks_compute_the_same_without_silent_channels(name):
    changes, left = NETWORKS[name]
    networks = {"lightning": build("lightning", name, **changes), "paddle": build("paddle", name, **changes)}
    rules = {framework: find_rules(model_config(framework, name)) for framework in networks}
    assert rules["lightning"] == rules["paddle"]
    arrays = silence(liven(lightning_kit.weights_to_numpy(networks["lightning"])), rules["paddle"])
    smaller = prune_channels(arrays, rules["paddle"], 0.5)
    assert sum(each.size for each in smaller.values()) / sum(each.size for each in arrays.values()) < left
    dense = {key: each.shape for key, each in arrays.items() if each.shape != smaller[key].shape}
    metadata = {"compression": json.dumps({"channels": 0.5, "dense": dense})}
    shape = (2, 7) if name == "tabular_mlp" else (2, 3, SIZE, SIZE)
    images = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    if name == "tabular_mlp":
        images[:, 5:] = [[1, 3], [2, 0]]  # codes
    outputs = []
    for framework, kit in (("lightning", lightning_kit), ("paddle", paddle_kit)):
        network = networks[framework]
        kit.weights_from_numpy(network, arrays)
        outputs.append(compute(framework, network, images))
        with pytest.raises(UserError, match="checkpoint of another model"):
            kit.weights_from_numpy(network, smaller)
        kit.weights_from_numpy(network, smaller, metadata)
        outputs.append(compute(framework, network, images))
        back = kit.weights_to_numpy(network)
        assert all(np.array_equal(back[key], smaller[key]) for key in smaller)
    assert outputs[0].std() > 0.05
    for other in outputs[1:]:
        np.testing.assert_allclose(other, outputs[0], atol=1e-5)


def test_multiplications_are_those_of_each_output():
    """Of a transformer by hand: 16 patches of 8 x 8 pixels and a token, 12 blocks of width 192, and a head."""
    expected = 16 * (3 * 8 * 8) * 192 + 17 * 12 * (12 * 192 * 192) + 5 * 192
    for framework, kit in (("lightning", lightning_kit), ("paddle", paddle_kit)):
        network = build(framework, "vit", patch=8)
        layers = kit.list_layers(network, (1, 3, SIZE, SIZE))
        assert multiplications(kit.weights_to_numpy(network), layers) == expected
        network = build(framework, "tabular_mlp")
        arrays, layers = kit.weights_to_numpy(network), kit.list_layers(network, (1, 7))
        tables = {row["name"] for row in layers if row["type"] == "Embedding"}
        assert len(tables) == 2, "which multiply nothing"
        weights = [array.size for key, array in arrays.items() if key.removesuffix(".weight") not in tables]
        assert multiplications(arrays, layers) <= sum(weights)


@pytest.mark.parametrize("framework", ["lightning", "paddle"])
def test_weights_with_fewer_channels_start_a_network_with_other_classes(tmp_path, framework):
    kit = {"lightning": lightning_kit, "paddle": paddle_kit}[framework]
    arrays = kit.weights_to_numpy(build(framework, "small_cnn"))
    smaller = prune_channels(arrays, find_rules(model_config(framework, "small_cnn")), 0.5)
    dense = {key: each.shape for key, each in arrays.items() if each.shape != smaller[key].shape}
    metadata = {"compression": json.dumps({"channels": 0.5, "dense": dense}), "classes": json.dumps(list("abcde"))}
    save_weights(tmp_path / "model.safetensors", smaller, metadata)
    network = build(framework, "small_cnn", 3, weights=str(tmp_path / "model.safetensors"))
    started = kit.weights_to_numpy(network)
    assert started["12.weight"].shape == (3, 24 * 16)
    assert all(np.array_equal(started[key], smaller[key]) for key in smaller if not key.startswith("12."))
    assert compute(framework, network, np.zeros((2, 3, SIZE, SIZE), np.float32)).shape == (2, 3)
    # which is the one that was compressed, or none
    with pytest.raises(UserError, match=r"0\.weight is \(6, 3, 5, 5\) in the file and \(20, 3, 5, 5\) in the network"):
        build(framework, "small_cnn", width=20, weights=str(tmp_path / "model.safetensors"))

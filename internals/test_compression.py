"""Channels and weights are removed where they matter least; mistakes are one sentence."""

import numpy as np
import pytest

from scripts.compress import main
from src.kit.compression import find_rules, prune_channels, prune_weights
from src.kit.errors import UserError
from tests.support import model_config

GENERATOR = np.random.default_rng(0)


def network(width: int = 32) -> dict[str, np.ndarray]:
    """Two convolutions with a normalisation between them, and a layer after a map of 2 x 2 cells."""
    shapes = {"0.weight": (width, 3, 3, 3), "3.weight": (8, width, 3, 3), "6.weight": (5, 8 * 4)}
    arrays = {name: GENERATOR.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    norms = [f"1.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
    return arrays | {name: GENERATOR.random(width, np.float32) for name in norms}


def test_the_channels_of_the_largest_magnitude_are_kept():
    arrays = network()
    arrays["1.weight"][:] = 0.1
    arrays["1.weight"][[3, 7, 30, *range(10, 23)]] = 10.0
    pruned = prune_channels(arrays, ["0 1 > 3"], 0.5)
    kept = [3, 7, *range(10, 23), 30]
    for name in ("0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var"):
        np.testing.assert_array_equal(pruned[name], arrays[name][kept])
    np.testing.assert_array_equal(pruned["3.weight"], arrays["3.weight"][:, kept])
    assert pruned["6.weight"] is arrays["6.weight"]


def test_a_channel_is_as_many_inputs_as_its_map_has_cells():
    arrays = network()
    arrays["3.weight"][[0, 4, 5, 6]] *= 100
    pruned = prune_channels(arrays, ["3 > 6"], 0.5)
    expected = arrays["6.weight"].reshape(5, 8, 4)[:, [0, 4, 5, 6]].reshape(5, 16)
    np.testing.assert_array_equal(pruned["6.weight"], expected)


@pytest.mark.parametrize(
    ("width", "share", "left"),
    [(64, 0.5, 32), (64, 0.7, 16), (64, 0.99, 8), (12, 0.5, 6), (12, 0.99, 1), (16, 0.01, 16)],
)
def test_wide_layers_keep_a_multiple_of_eight(width, share, left):
    assert len(prune_channels(network(width), ["0 1 > 3"], share)["0.weight"]) == left


def test_rules_name_layers_by_numbers():
    arrays = {
        f"layer{stage}.0.conv{number}.weight": np.ones((4, 4, 1, 1), np.float32)
        for stage in (1, 2)
        for number in (1, 2)
    }
    pruned = prune_channels(arrays, ["layer*.*: conv1 > conv2", "layer*.*: conv2 > conv3"], 0.5)
    for stage in (1, 2):
        assert pruned[f"layer{stage}.0.conv1.weight"].shape == (2, 4, 1, 1)
        assert pruned[f"layer{stage}.0.conv2.weight"].shape == (4, 2, 1, 1), "there is no conv3 to read its channels"
    assert not prune_channels(arrays, ["stage*: conv1 > conv2"], 0.5)


def test_the_smallest_weights_become_zero():
    arrays = network() | {"depthwise.weight": np.ones((8, 1, 3, 3), np.float32)}
    pruned = prune_weights(arrays, 0.75)
    for name in ("0.weight", "3.weight", "6.weight"):
        zero = pruned[name] == 0
        assert zero.mean() == pytest.approx(0.75, abs=0.01)
        assert np.abs(arrays[name][zero]).max() <= np.abs(arrays[name][~zero]).min()
        np.testing.assert_array_equal(pruned[name][~zero], arrays[name][~zero])
    assert all(np.array_equal(pruned[name], arrays[name]) for name in ("1.weight", "1.running_var", "depthwise.weight"))


def test_two_of_four_input_channels_become_zero():
    arrays = network()
    pruned = prune_weights(arrays, 0.5, "2:4")
    assert np.array_equal(pruned["0.weight"], arrays["0.weight"]), "3 input channels are no multiple of 4"
    for name in ("3.weight", "6.weight"):
        before, after = (np.moveaxis(each[name], 1, -1).reshape(-1, 4) for each in (arrays, pruned))
        assert ((after == 0).sum(axis=1) == 2).all()
        kept = np.sort(np.abs(after), axis=1)[:, 2:]
        np.testing.assert_array_equal(kept, np.sort(np.abs(before), axis=1)[:, 2:])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], r"^Say what to remove: --channels 0\.5, --sparsity 0\.5 or --pattern 2:4\.$"),
        (["--channels", "50"], r"^--channels 50 must be between 0 and 1: it is the share that is removed\.$"),
        (["--sparsity", "0"], "^--sparsity 0 must be between 0 and 1"),
        (["--pattern", "2:4", "--sparsity", "0.7"], r"sets half of the weights to zero: leave --sparsity 0\.7 out\.$"),
        (["--channels", "0.5", "--epochs", "0"], "^--epochs 0 must be 1 or more"),
        (["a", "b", "--channels", "0.5"], r"^Cannot read 'b': write \[RUN\] \[key=value \.\.\.\] and the options\.$"),
        (["--channels", "0.5"], "^outputs holds no trained run: train first"),
        (["none", "--channels", "0.5"], "none"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        main(options)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_network_that_names_no_channels_is_refused():
    with pytest.raises(
        UserError, match=r"yolov10n has no channels to remove .+ in deeplab, .+resnet.+, --sparsity for all"
    ):
        find_rules(model_config("lightning", "yolov10n"))

"""Weights files, and how weights are fitted to a network: no framework needed."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from paths import TEMPLATE
from src.kit.errors import UserError
from src.kit.training.networks import STEMS, find_pretrained, stem_stride
from src.kit.weights import (
    adapt_stem,
    check_shapes,
    count_classes,
    load_weights,
    missing_weights,
    rename_timm,
    save_weights,
)

ARRAYS = {
    "conv1.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "fc.weight": np.ones((10, 2), np.float32),
    "fc.bias": np.zeros(10, np.float32),
}


def test_round_trip(tmp_path: Path):
    turned = {**ARRAYS, "fc.weight": np.arange(20, dtype=np.float32).reshape(2, 10).T}
    save_weights(tmp_path / "model.safetensors", turned, {"model": "resnet18"})
    arrays, metadata = load_weights(tmp_path / "model.safetensors")
    assert metadata == {"model": "resnet18"}
    assert arrays.keys() == turned.keys()
    assert all(np.array_equal(arrays[name], turned[name]) for name in turned)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_failed_save_keeps_the_old_file(tmp_path: Path):
    save_weights(tmp_path / "model.safetensors", ARRAYS, {})
    with pytest.raises(TypeError):
        save_weights(tmp_path / "model.safetensors", ARRAYS, {"epoch": 3})  # type: ignore[dict-item]
    assert load_weights(tmp_path / "model.safetensors")[0].keys() == ARRAYS.keys()
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize("damage", [lambda data: data[:-5], lambda data: b"", lambda data: b"x" * len(data)])
def test_corrupt_file(tmp_path: Path, damage):
    path = tmp_path / "model.safetensors"
    save_weights(path, ARRAYS, {})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=r"model\.safetensors is corrupt"):
        load_weights(path)


def test_other_format_and_missing_file(tmp_path: Path):
    (tmp_path / "model.pth").write_bytes(b"\x80\x04")
    with pytest.raises(UserError, match=r"must be a \.safetensors file, not 'model\.pth'"):
        load_weights(tmp_path / "model.pth")
    with pytest.raises(UserError, match="There is no weights file"):
        load_weights(tmp_path / "absent.safetensors")


@pytest.mark.parametrize("framework", ["lightning", "paddle"])
def test_unknown_pretrained(framework: str):
    with pytest.raises(UserError, match=r"weights for 'small_cnn'; there are for: .*efficientnet.*resnet18"):
        find_pretrained(OmegaConf.create({"framework": framework, "model": {"name": "small_cnn"}}))


def test_pretrained_without_network(tmp_path: Path):
    # A process of its own: huggingface_hub reads its environment variables when it is first imported.
    result = subprocess.run(
        [
            sys.executable,
            "-c",
            "from src.kit.weights import download_weights; download_weights('timm/resnet18.tv_in1k')",
        ],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
        cwd=TEMPLATE,
        capture_output=True,
        text=True,
        timeout=60,
    )
    message = result.stderr.splitlines()[-1]
    assert "UserError: Cannot download the pretrained weights timm/resnet18.tv_in1k" in message
    assert "set HF_ENDPOINT to a mirror" in message
    assert "`hf download timm/resnet18.tv_in1k model.safetensors`" in message
    assert message.endswith(
        f"copy models--timm--resnet18.tv_in1k from its ~/.cache/huggingface/hub to {tmp_path / 'hub'}."
    )


def test_timm_files_get_the_networks_names(tmp_path: Path):
    names = {
        "conv_stem.weight": "features.0.0.weight",
        "blocks.0.0.conv_pw.weight": "features.1.0.block.2.0.weight",
        "blocks.0.0.bn2.running_mean": "features.1.0.block.2.1.running_mean",
        "blocks.3.2.se.conv_reduce.bias": "features.4.2.block.2.fc1.bias",
        "blocks.6.0.conv_pwl.weight": "features.7.0.block.3.0.weight",
        "bn2.weight": "features.8.1.weight",
        "classifier.bias": "classifier.1.bias",
    }
    arrays = {name: np.full(1, index, np.float32) for index, name in enumerate(names)}
    arrays["bn2.num_batches_tracked"] = np.array(3)
    save_weights(tmp_path / "model.safetensors", arrays, {})
    initial = {"features.0.0.weight": arrays["conv_stem.weight"]}  # of a network that has torchvision's names
    loaded = rename_timm(load_weights(tmp_path / "model.safetensors")[0], initial)
    assert {name: int(array[0]) for name, array in loaded.items()} == {
        new: index for index, new in enumerate(names.values())
    }


@pytest.mark.parametrize("channels", [1, 4])
def test_stem_of_other_channels_keeps_grey_images_response(channels: int):
    initial = {**ARRAYS, "conv1.weight": np.zeros((2, channels, 2, 2), np.float32)}
    stem = adapt_stem(ARRAYS, initial)["conv1.weight"]
    assert stem.shape == (2, channels, 2, 2)
    np.testing.assert_allclose(stem.sum(axis=1), ARRAYS["conv1.weight"].sum(axis=1))


def test_stem_of_another_kernel_keeps_its_initial_values(caplog):
    initial = {**ARRAYS, "conv1.weight": np.full((2, 3, 3, 3), 7, np.float32)}
    assert np.all(adapt_stem(ARRAYS, initial)["conv1.weight"] == 7)
    assert "2x2 kernel and this network 3x3" in caplog.text


def test_what_depends_on_the_classes_and_whole_layers_that_the_file_lacks_are_left_out():
    initial = {
        "conv1.weight": np.zeros((2, 3, 2, 2), np.float32),
        "fc.weight": np.full((4, 2), 5, np.float32),
        "fc.bias": np.full(4, 5, np.float32),
        "attention.weight": np.zeros((2, 2), np.float32),
    }
    shapes = {**{name: array.shape for name, array in ARRAYS.items()}, "attention.weight": (2, 2)}
    assert missing_weights(ARRAYS, initial, shapes) == ["fc.weight", "fc.bias", "attention.weight"]


def test_what_differs_for_another_reason_is_not_left_out():
    shapes = {name: array.shape for name, array in ARRAYS.items()}
    wider = {**ARRAYS, "conv1.weight": np.zeros((4, 3, 2, 2), np.float32)}
    assert missing_weights(ARRAYS, wider, {**shapes, "conv1.weight": (4, 3, 2, 2)}) == []
    lacking = {name: array for name, array in ARRAYS.items() if name != "fc.bias"}
    assert missing_weights(lacking, ARRAYS, shapes) == [], "half a layer is a fault"


@pytest.mark.parametrize(
    ("metadata", "count"),
    [({"classes": '["a", "b"]'}, 2), ({}, 1000), ({"classes": "7"}, 1000), ({"classes": "a"}, 1000)],
)
def test_a_file_says_for_how_many_classes_it_was_made(metadata, count):
    assert count_classes(metadata) == count


def test_check_names_the_first_difference():
    shapes = {name: array.shape for name, array in ARRAYS.items()}
    check_shapes(ARRAYS, shapes)
    with pytest.raises(UserError, match=r"fc\.bias is \(10,\) in the file and \(5,\) in the network"):
        check_shapes(ARRAYS, {**shapes, "fc.bias": (5,)})
    with pytest.raises(UserError, match=r"checkpoint of another model: bn1\.bias is absent in the file and \(2,\)"):
        check_shapes(ARRAYS, {**shapes, "bn1.bias": (2,)})


def test_stem_choice():
    chosen = {stem: [stem_stride(stem, size) for size in (28, 32, 33, 64, 65, 224)] for stem in STEMS}
    assert chosen["scaled"] == [1, 1, 2, 2, 4, 4]
    assert chosen["auto"] == [1, 1, 1, 1, 4, 4], "the weights of earlier runs stay what they were"
    assert [chosen[stem][0] for stem in ("small", "half", "imagenet")] == [1, 2, 4]
    with pytest.raises(UserError, match="'tiny'; choose one of scaled, small, half, imagenet, auto"):
        stem_stride("tiny", 32)

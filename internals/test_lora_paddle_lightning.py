"""Low-rank adapters: what they train, what they leave, and that their product becomes plain weights again."""

import logging
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from src.kit.config import UserError, load_config
from src.kit.training import RunPredictor, build_model, find_checkpoint, train
from src.kit.training.networks import merge_adapters
from src.kit.weights import load_weights, save_weights
from tests.support import model_config

FRAMEWORKS = ["lightning", "paddle"]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_run_trains_the_adapters_and_merges_into_the_plain_network(framework: str, tmp_path: Path):
    plain = build_model(model_config(framework, "resnet18_attention"), 10, 1, 8)
    kit = import_module(f"src.kit.{framework}")
    before, start = kit.weights_to_numpy(plain), tmp_path / "start.safetensors"
    save_weights(start, before, {"classes": str([str(digit) for digit in range(10)]).replace("'", '"')})
    keys = [f"framework={framework}", "model=resnet18_attention", "model.lora=4", f"model.weights={start}"]
    keys += ["data=digits", "trainer=debug", f"output_dir={tmp_path}", "optimizer.lr=0.01", "tracker=none"]
    run = train(load_config(keys)).path
    after = load_weights(find_checkpoint(run, "last") / "model.safetensors")[0]
    adapted = {"attention.qkv", "attention.out"}
    learned = {f"{layer}.{part}.weight" for layer in adapted for part in ("up", "down")}
    assert learned < after.keys()
    assert after["attention.qkv.up.weight"].any()
    same = {name for name in after if name in before and np.array_equal(after[name], before[name])}
    assert set(after) - same - learned == {"fc.weight", "fc.bias"} | {
        f"{layer}.base.{part}" for layer in adapted for part in ("weight", "bias")
    }
    assert all(np.array_equal(after[f"{layer}.base.weight"], before[f"{layer}.weight"]) for layer in adapted)
    merged = build_model(
        model_config(framework, "resnet18_attention", weights=str(find_checkpoint(run, "best") / "model.safetensors")),
        10,
        1,
        8,
    )
    kit.weights_from_numpy(plain, merge_adapters(load_weights(find_checkpoint(run, "best") / "model.safetensors")[0]))
    arrays = np.random.default_rng(0).normal(size=(3, 1, 8, 8)).astype(np.float32)
    expected = RunPredictor(run).compute(arrays)
    for network in (plain, merged):
        network.eval()
        np.testing.assert_allclose(kit.predict_images(network, arrays), expected, rtol=1e-4, atol=1e-4)


def test_adapters_of_a_transformer_are_few(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "train")
    network = build_model(model_config("lightning", "timm", name="vit_small_patch16_224", lora=4), 10, 3, 64)
    trained = sum(each.numel() for each in network.parameters() if each.requires_grad)
    everything = sum(each.numel() for each in network.parameters())
    assert 0.005 < trained / everything < 0.02
    assert f"model.lora trains {trained} weights" in caplog.text


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_network_without_linear_layers_is_refused(framework: str):
    with pytest.raises(UserError, match="small_cnn has no linear layers but the last"):
        build_model(model_config(framework, "small_cnn", lora=4), 10, 1, 8)

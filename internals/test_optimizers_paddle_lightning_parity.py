"""Optimizers, parameter groups and frozen layers do the same in both frameworks."""

import numpy as np
import paddle
import pytest
import torch
from omegaconf import OmegaConf

from src.kit.config import UserError, load_config
from src.kit.config.compose import option_names
from src.kit.lightning import build_optimizer as lightning_optimizer
from src.kit.lightning import weights_to_numpy as lightning_weights
from src.kit.paddle import build_optimizer as paddle_optimizer
from src.kit.paddle import weights_from_numpy as to_paddle
from src.kit.paddle import weights_to_numpy as paddle_weights
from src.kit.training import build_model, frozen_layers, parameter_groups
from src.trainers.optimizers.lightning import muon as muon_of_torch
from src.trainers.optimizers.paddle import muon as muon_of_paddle

STEPS = 4


def networks(*overrides: str):
    cfg = load_config(["model=small_cnn", *overrides])
    torch.manual_seed(0)
    ours = build_model(cfg, 10, 1, 8)
    other = build_model(OmegaConf.merge(cfg, {"framework": "paddle"}), 10, 1, 8)
    to_paddle(other, lightning_weights(ours))
    return cfg, ours, other


def train(*overrides: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Weights after a few steps on the same batches in both frameworks."""
    cfg, ours, other = networks(*overrides)
    ours.train()
    other.train()
    for network in (ours, other):
        for layer in frozen_layers(network):
            layer.eval()
    first, second = lightning_optimizer(cfg, ours), paddle_optimizer(cfg, other)
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        images, labels = rng.standard_normal((16, 1, 8, 8), np.float32), rng.integers(0, 10, 16)
        first.zero_grad()
        torch.nn.functional.cross_entropy(ours(torch.from_numpy(images)), torch.from_numpy(labels)).backward()
        first.step()
        paddle.nn.functional.cross_entropy(other(paddle.to_tensor(images)), paddle.to_tensor(labels)).backward()
        second.step()
        second.clear_grad()
    return lightning_weights(ours), paddle_weights(other)


@pytest.mark.parametrize("optimizer", option_names("optimizer"))
@pytest.mark.parametrize(
    "overrides",
    [["optimizer.weight_decay=0.1"], ["optimizer.layer_decay=0.5", "optimizer.decay_norms_and_biases=true"]],
    ids=["decay", "layers"],
)
def test_every_optimizer_takes_the_same_steps(optimizer, overrides):
    ours, other = train(f"optimizer={optimizer}", "optimizer.lr=0.001", *overrides)
    start = lightning_weights(networks()[1])
    for name, array in ours.items():
        if "running" in name:  # Paddle's variance is divided by n, PyTorch's by n - 1
            continue
        assert not np.array_equal(array, start[name]), name
        # steps by a sign or divided by a root differ where a gradient is nearly nothing
        moved = np.abs(array - start[name]).max()
        assert np.mean(np.abs(array - other[name]) > 0.1 * moved) < 0.1, name


@pytest.mark.parametrize("framework", ["lightning", "paddle"])
@pytest.mark.parametrize("optimizer", option_names("optimizer"))
def test_norms_and_biases_are_not_decayed(framework, optimizer):
    """Without a gradient only decay moves a weight."""
    for everything in (False, True):
        cfg, ours, other = networks(f"optimizer={optimizer}", "optimizer.lr=0.01", "optimizer.weight_decay=0.5")
        cfg.optimizer.decay_norms_and_biases = everything
        network, read = (ours, lightning_weights) if framework == "lightning" else (other, paddle_weights)
        before = read(network)
        build = lightning_optimizer if framework == "lightning" else paddle_optimizer
        made = build(cfg, network)
        for parameter in network.parameters():
            if framework == "lightning":
                parameter.grad = torch.zeros_like(parameter)
            elif not parameter.stop_gradient:
                (parameter * 0.0).sum().backward()
        made.step()
        after = read(network)
        moved = {name for name in before if not np.array_equal(before[name], after[name])}
        matrices = {name for name, array in before.items() if array.ndim > 1}
        vectors = {name for name, array in before.items() if array.ndim < 2 and np.any(array) and "running" not in name}
        assert moved == (matrices | vectors if everything else matrices)


def test_layers_further_from_the_output_learn_slower():
    _, ours, _ = networks()
    keys = OmegaConf.create({"layer_decay": 0.5})
    named = list(ours.named_parameters())
    scales = {id(each): group["lr_scale"] for group in parameter_groups(keys, named) for each in group["params"]}
    ordered = [scales[id(parameter)] for _, parameter in named]
    assert ordered == sorted(ordered)
    assert ordered[-1] == 1.0
    assert len(set(ordered)) > 2
    assert all(np.log2(scale).is_integer() for scale in ordered)


@pytest.mark.parametrize("framework", ["lightning", "paddle"])
def test_frozen_layers_stay_as_they_are(framework):
    first = next(name for name, layer in networks()[1].named_modules() if name and list(layer.parameters()))
    start = lightning_weights(networks()[1])
    after = dict(zip(("lightning", "paddle"), train(f"model.freeze=[{first}]"), strict=True))[framework]
    frozen = {name for name in start if name.startswith(f"{first}.")}
    assert frozen
    assert all(np.array_equal(start[name], after[name]) == (name in frozen) for name in start)


def test_freezing_mistakes_are_sentences():
    with pytest.raises(UserError, match=r"Unknown layer in model\.freeze 'nothing'"):
        networks("model.freeze=[nothing]")
    everything = ",".join(dict.fromkeys(name.partition(".")[0] for name, _ in networks()[1].named_parameters()))
    with pytest.raises(UserError, match="leaves nothing to train"):
        networks(f"model.freeze=[{everything}]")


def test_muon_makes_all_singular_values_nearly_one():
    for shape in ((8, 20), (20, 8)):
        matrix = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        ours = muon_of_torch.orthogonalize(torch.from_numpy(matrix)[None])[0].numpy()
        other = muon_of_paddle.orthogonalize(paddle.to_tensor(matrix)).numpy()
        values = np.linalg.svd(ours, compute_uv=False)
        assert 0.6 < values.min() < values.max() < 1.3
        assert np.allclose(ours, other, atol=1e-4)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_where_no_step_can_be_one_kernel_pytorch_chooses_and_takes_many_weights_at_once(name):
    clipped = ["trainer.precision=bf16-mixed", "trainer.gradient_clip_val=1.0"]
    for keys, fused in ((clipped, None), (clipped[:1], True)):
        cfg = load_config([f"optimizer={name}", "model=small_cnn", "framework=lightning", *keys])
        optimizer = lightning_optimizer(cfg, build_model(cfg, 10, 1, 8))
        assert (optimizer.defaults["fused"], optimizer.defaults["foreach"]) == (fused, None)


def test_muon_takes_equal_matrices_together_as_it_would_alone():
    gradients = [torch.randn(shape, generator=torch.manual_seed(2)) for shape in ((8, 4, 3, 3), (8, 36), (4, 6), (6,))]
    stepped = []
    for together in (True, False):
        weights = [torch.nn.Parameter(torch.ones_like(gradient)) for gradient in gradients]
        last = torch.nn.Parameter(torch.ones(2, 2))  # AdamW's
        chosen = [weights] if together else [[each] for each in weights]
        optimizers = [muon_of_torch.build([*group, last], fused=False) for group in chosen]
        for _ in range(3):
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.grad = gradient.clone()
            for optimizer in optimizers:
                optimizer.step()
        stepped.append(torch.cat([weight.detach().flatten() for weight in weights]))
    assert torch.allclose(*stepped, atol=1e-6)
    assert not torch.allclose(stepped[0], torch.ones(()))

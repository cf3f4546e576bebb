"""Recipes beside plain training, a teacher and averages: the same in both frameworks, and what the formulas say."""

import re
import shutil
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
import torch

from src.kit.config import UserError, load_config
from src.kit.inference import softmax
from src.kit.lightning import recipes as in_torch
from src.kit.lightning.memory_trace import trace_steps
from src.kit.memory import DataShape
from src.kit.memory.allocators import simulate_allocator
from src.kit.memory.estimate import average_bytes
from src.kit.paddle import recipes as in_paddle
from src.kit.paddle import refuse_unsupported
from src.kit.run import Run, read_rows
from src.kit.training import Experiment, average_decay, build_model, check_teacher, find_checkpoint, recompute
from src.kit.training.splits import describe_splits, write_splits
from src.kit.weights import load_weights
from tests.support import fit, predict

FRAMEWORKS = ("lightning", "paddle")
BASE = ["model=small_cnn", "data=digits", "data.batch_size=64", "tracker=none", "trainer.limit_train_batches=5"]
BASE += ["trainer.max_epochs=2"]


def configure(folder: Path, *words: str):
    return load_config([*BASE, f"output_dir={folder.as_posix()}", *words])


def train(cfg) -> Path:
    with Run(cfg) as run:
        fit(cfg, run)
    return run.path


def weights_of(run: Path) -> dict[str, np.ndarray]:
    return load_weights(find_checkpoint(run, "last") / "model.safetensors")[0]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    """A run of Lightning that takes larger images in another normalisation."""
    words = ["data.image_size=12", "data.mean=[0.5]", "data.std=[0.25]", "trainer.max_epochs=1"]
    return train(configure(tmp_path_factory.mktemp("teacher"), *words))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_loss_is_the_formulas_and_its_gradient_too(temperature):
    random = np.random.default_rng(0)
    logits, taught = (random.normal(scale=3, size=(16, 5)).astype(np.float32) for _ in range(2))
    p, q = (softmax(each.astype(np.float64) / temperature) for each in (logits, taught))
    value, gradient = temperature**2 * (q * np.log(q / p)).sum(axis=1).mean(), temperature * (p - q) / len(p)
    ours, theirs = torch.tensor(logits, requires_grad=True), paddle.to_tensor(logits, stop_gradient=False)
    first = in_torch.distillation_loss(ours, torch.tensor(taught), temperature)
    second = in_paddle.distillation_loss(theirs, paddle.to_tensor(taught), temperature)
    first.backward()
    second.backward()
    for loss, found in ((first, ours.grad), (second, theirs.grad)):
        assert float(loss) == pytest.approx(value, rel=1e-5)
        np.testing.assert_allclose(found.numpy(), gradient, atol=1e-6)


def test_a_teacher_of_either_framework_sees_the_same_images_and_gives_the_same_loss(teacher, tmp_path):
    found = {}
    for framework, recipes, tensor in (
        ("lightning", in_torch, torch.from_numpy),
        ("paddle", in_paddle, paddle.to_tensor),
    ):
        experiment = Experiment(configure(tmp_path, f"framework={framework}", f"distill.teacher={teacher}"))
        images, targets = next(iter(experiment.build_loader("val")))
        distill = recipes.build_distillation(experiment)
        logits = np.random.default_rng(0).normal(size=(len(images), 10)).astype(np.float32)
        prepared = distill.prepare(tensor(images)).numpy()
        loss = distill(tensor(images), tensor(logits), 2.0)
        found[framework] = (prepared, float(loss))
    own = Experiment(load_config([], base=teacher / "config.yaml"))
    expected, same = next(iter(own.build_loader("val")))
    assert np.array_equal(targets, same)
    for prepared, _ in found.values():  # the teacher's own images were rounded to whole levels, twice
        np.testing.assert_allclose(prepared, expected, atol=1.01 / 255 / 0.25)
    assert found["lightning"][1] == pytest.approx(found["paddle"][1], rel=1e-5)
    assert found["lightning"][1] > 1.0


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_teacher_without_weight_changes_nothing_and_one_with_weight_is_not_saved(teacher, tmp_path, framework):
    words = [f"framework={framework}", "model.dropout=0.2"]
    alone, ignored, taught = (
        weights_of(train(configure(tmp_path, *words, *more)))
        for more in (
            [],
            [f"distill={teacher}", "distill.weight=0"],
            [f"distill={teacher}", "distill.temperature=2"],
        )
    )
    assert alone.keys() == ignored.keys() == taught.keys()
    assert all(np.array_equal(alone[name], ignored[name]) for name in alone)
    assert not all(np.array_equal(alone[name], taught[name]) for name in alone)
    for path in tmp_path.rglob("training.ckpt"):
        names = torch.load(path, weights_only=True)["state_dict"]
        assert all(name.startswith("network.") for name in names), "what a plain run saves"


def test_tables_have_teachers_too(tmp_path):
    keys = ["task=tabular", "tracker=none", "trainer.max_epochs=2", f"output_dir={tmp_path.as_posix()}"]
    teacher = train(load_config([*keys, "framework=lightning"]))
    words = [*keys, "framework=paddle", "model.hidden=[8]", f"distill={teacher}"]
    assert np.isfinite([array.sum() for array in weights_of(train(load_config(words))).values()]).all()
    with pytest.raises(UserError, match="encodes other columns, or was fitted to other rows"):
        check_teacher(Experiment(load_config([*words, "seed=3"])))


def test_a_teacher_that_cannot_teach_is_one_sentence(teacher, tmp_path):
    def refused(*words: str) -> str:
        with pytest.raises(UserError) as error:
            check_teacher(Experiment(configure(tmp_path, f"distill.teacher={teacher}", *words)))
        return str(error.value)

    assert refused("data.classes=['0','1']").startswith("Class 3 is '2' to the teacher")
    assert "holds no checkpoint" in refused(f"distill.teacher={tmp_path}")
    table = ["task=tabular", "data=breast_cancer", "model=tabular_mlp"]
    assert refused(*table).endswith("was trained for task=classification, and the student is for task=tabular.")
    assert refused(*table, "model=trees").startswith("A teacher is for networks that tell one class for each sample")
    assert "not for task=tabular_regression" in refused(
        "task=tabular_regression", "data=housing", "model=tabular_mlp", "loss=mse"
    )


def test_samples_that_the_teacher_knows_are_said(teacher, tmp_path):
    cfg = load_config([], base=teacher / "config.yaml")
    write_splits(describe_splits(Experiment(cfg)), teacher)
    assert check_teacher(Experiment(configure(tmp_path, f"distill={teacher}"))) == []
    doubts = check_teacher(Experiment(configure(tmp_path, f"distill={teacher}", "seed=7")))
    assert [re.sub(r"\d+", "N", doubt)[:47] for doubt in doubts] == [
        f"The teacher was trained on N of the {split}"[:47] for split in ("val samples", "test samples")
    ]


def test_averages_are_the_recursion_computed_by_hand():
    ours, theirs = torch.nn.BatchNorm1d(3), paddle.nn.BatchNorm1D(3)
    pairs = [
        (in_torch.Average(ours), lambda own, value: own.copy_(torch.from_numpy(value))),
        (in_paddle.Average(theirs), lambda own, value: own.set_value(value)),
    ]
    for average, write in pairs:
        expected = [each.numpy().copy() for each in average.mean]
        assert len(expected) == 4, "weight, bias, mean and variance, but not torch's counter"
        for step in range(1, 13):
            decay = min(0.5, (1 + step) / (10 + step))
            random = np.random.default_rng(step)
            for number, own in enumerate(average.own):
                value = random.normal(size=3).astype(np.float32)
                write(own, value)
                expected[number] = decay * expected[number] + (1 - decay) * value
            average.update(average_decay(0.5, step))
            before = [own.numpy().copy() for own in average.own]
            with average.applied():
                for own, value in zip(average.own, expected, strict=True):
                    np.testing.assert_allclose(own.numpy(), value, atol=1e-6)
            assert all(np.array_equal(own.numpy(), kept) for own, kept in zip(average.own, before, strict=True))


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_run_saves_and_evaluates_the_average_and_trains_as_without_it(tmp_path, framework):
    words = [f"framework={framework}", "trainer.max_epochs=1", "trainer.accumulate_grad_batches=2"]
    saving = ["trainer.checkpoint.every_n_steps=1", "trainer.checkpoint.keep_last=9"]
    plain = weights_of(alone := train(configure(tmp_path, *words)))
    cfg = configure(tmp_path, *words, *saving, "trainer.ema=0.3")
    run = train(cfg)
    folders = sorted((run / "checkpoints").glob("epoch=*"), key=lambda path: path.name[-6:])
    averages = [load_weights(folder / "model.safetensors")[0] for folder in folders]
    raw = [read_raw(folder) for folder in folders]
    assert all(np.array_equal(plain[name], raw[-1][name]) for name in plain), "averaging changes no step"
    assert len(folders) == 3, "steps of 2, 2 and 1 batches"
    for step in (2, 3):
        decay = min(0.3, (1 + step) / (10 + step))
        for name, value in raw[step - 1].items():
            expected = decay * averages[step - 2][name] + (1 - decay) * value
            np.testing.assert_allclose(averages[step - 1][name], expected, atol=1e-6)
    (row,) = read_rows(run / "metrics.jsonl")
    outputs, targets = (np.concatenate(part) for part in zip(*predict(cfg, folders[-1], "val"), strict=True))
    loss = -np.log(softmax(outputs)[np.arange(len(targets)), targets]).mean()
    assert row["val/loss"] == pytest.approx(loss, abs=1e-5)
    (other,) = read_rows(alone / "metrics.jsonl")
    assert abs(row["val/loss"] - other["val/loss"]) > 1e-4, "the weights themselves have another loss"


def read_raw(folder: Path) -> dict[str, np.ndarray]:
    """The weights beside the average in a checkpoint."""
    if (folder / "training.ckpt").is_file():
        state = torch.load(folder / "training.ckpt", weights_only=True)["state_dict"]
        floats = {name: tensor.numpy() for name, tensor in state.items() if tensor.is_floating_point()}
        return {name.removeprefix("network."): array for name, array in floats.items()}
    arrays = load_weights(folder / "training.safetensors")[0]
    return {name.removeprefix("raw/"): array for name, array in arrays.items() if name.startswith("raw/")}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_mean_of_epochs_has_equal_weights_and_statistics_of_its_own(tmp_path, framework):
    words = [f"framework={framework}", "trainer.max_epochs=4", "trainer.swa=0.5", "data.augment=none"]
    cfg = configure(tmp_path, *words, "trainer.checkpoint.keep_last=9")
    run = train(cfg)
    folders = sorted((run / "checkpoints").glob("epoch=*"))
    assert len(folders) == 4
    averages, raw = ([read(folder) for folder in folders] for read in (read_average, read_raw))
    for number in (0, 1):
        assert all(np.array_equal(averages[number][name], raw[number][name]) for name in averages[number]), "none yet"
    weights = [name for name in averages[3] if "running" not in name]
    assert len(weights) < len(averages[3])
    for name in weights:
        np.testing.assert_allclose(averages[2][name], raw[2][name], atol=1e-6)
        np.testing.assert_allclose(averages[3][name], (raw[2][name] + raw[3][name]) / 2, atol=1e-6)
    loader = Experiment(cfg).build_loader("train")
    loader.set_epoch(3)
    kernel = torch.from_numpy(averages[3]["0.weight"])
    outputs = [torch.nn.functional.conv2d(torch.from_numpy(images), kernel, None, 2, 2) for images, _ in loader]
    mean = torch.stack([each.mean((0, 2, 3)) for each in outputs]).mean(0).numpy()
    np.testing.assert_allclose(averages[3]["1.running_mean"], mean, atol=1e-5)
    assert np.abs(raw[3]["1.running_mean"] - mean).max() > 1e-4
    shutil.rmtree(folders[3])  # as if it had been killed before: the mean goes on from the first one's weights
    with Run(cfg, run) as resumed:
        fit(cfg, resumed, find_checkpoint(run, "last"))
    for read, before in ((read_average, averages[3]), (read_raw, raw[3])):
        again = read(folders[3])
        assert all(np.array_equal(before[name], again[name]) for name in before)
    assert [row["epoch"] for row in read_rows(run / "metrics.jsonl")] == [1, 2, 3, 4]
    with pytest.raises(UserError, match="exclude each other"):
        in_torch.build_average(configure(tmp_path, "trainer.ema=0.9", "trainer.swa=0.5"), torch.nn.Identity())


def read_average(folder: Path) -> dict[str, np.ndarray]:
    return load_weights(folder / "model.safetensors")[0]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_blocks_that_are_computed_again_give_the_same_gradients_and_statistics(framework):
    cfg = load_config([f"framework={framework}", "model=resnet18", "model.dropout=0.2", "data=digits"])
    images = np.random.default_rng(0).normal(size=(8, 1, 8, 8)).astype(np.float32)
    module = import_module(f"src.kit.{framework}")
    network = build_model(cfg, 10, 1, 8)
    start = module.weights_to_numpy(network)
    plain = gradients_of(framework, network, images)
    after = module.weights_to_numpy(network)
    module.weights_from_numpy(network, start)
    passes = count_passes(framework, network)
    recompute(cfg, network)
    again = gradients_of(framework, network, images)
    assert passes == [2, 2], "forwards, and once more for the gradient"
    assert plain.keys() == again.keys()
    for name, value in plain.items():
        np.testing.assert_array_equal(again[name], value, err_msg=name)
    statistics = module.weights_to_numpy(network)
    assert any(not np.array_equal(start[name], after[name]) for name in after if "running" in name)
    assert all(np.array_equal(statistics[name], after[name]) for name in after)
    network.eval()
    network(torch.from_numpy(images) if framework == "lightning" else paddle.to_tensor(images))
    assert passes == [3, 3]


def module_weights(cfg: Any) -> dict[str, np.ndarray]:
    return import_module(f"src.kit.{cfg.framework}").weights_to_numpy(build_model(cfg, 10, 1, 32))


def gradients_of(framework: str, network: Any, images: np.ndarray) -> dict[str, np.ndarray]:
    """Gradients of a loss at seed 0, in training mode."""
    network.train()
    if framework == "lightning":
        network.zero_grad()
        torch.manual_seed(0)
        (network(torch.from_numpy(images)) ** 2).mean().backward()
        return {name: each.grad.numpy().copy() for name, each in network.named_parameters()}
    network.clear_gradients()
    paddle.seed(0)
    (network(paddle.to_tensor(images)) ** 2).mean().backward()
    return {name: each.grad.numpy() for name, each in network.named_parameters() if each.grad is not None}


def count_passes(framework: str, network: Any) -> list[int]:
    """How often data pass a convolution of the first block and one of the last; it goes on counting."""
    passes = [0, 0]
    for number, block in enumerate((network.layer1[0], network.layer4[1])):

        def hook(*_: Any, number: int = number) -> None:
            passes[number] += 1

        method = "register_forward_hook" if framework == "lightning" else "register_forward_post_hook"
        getattr(block.conv2, method)(hook)
    return passes


def test_blocks_that_are_computed_again_take_less_memory_and_others_are_refused():
    words = ["framework=lightning", "model=resnet18", "data=digits"]
    shape, peaks = DataShape(10, 1, 32, 1000), []
    for on in (False, True):
        (trace,) = trace_steps(load_config([*words, f"trainer.gradient_checkpointing={on}"]), shape, (64,))
        peaks.append(simulate_allocator(trace, "lightning").kinds["activations"])
    assert peaks[1] < 0.5 * peaks[0]
    size = sum(each.nbytes for each in module_weights(load_config(words)).values())
    for key, expected in (("ema=0.9", size), ("swa=0.5", size), ("ema=null", 0)):
        assert average_bytes(load_config([*words, f"trainer.{key}"]), trace) == pytest.approx(expected, rel=0.001)
    words += ["trainer.gradient_checkpointing=true"]
    with pytest.raises(UserError, match="model=small_cnn has no blocks"):
        Experiment(load_config([*words, "model=small_cnn"])).build_network()
    with pytest.raises(UserError, match="exclude each other"):
        Experiment(load_config([*words, "trainer.compile=true"])).build_network()


def test_a_compiled_network_keeps_its_names_and_trains_as_before(tmp_path, monkeypatch, capsys):
    traced = []

    def backend(graph: torch.fx.GraphModule, inputs: list) -> Any:  # without the code, which takes a minute
        traced.append(len(graph.graph.nodes))
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    words = ["trainer.max_epochs=1", "data.image_size=9", "framework=lightning"]
    plain, compiled = (weights_of(train(configure(tmp_path, *words, f"trainer.compile={on}"))) for on in (False, True))
    assert len(traced) >= 2, "training and evaluation"
    assert plain.keys() == compiled.keys()
    for name, value in plain.items():
        np.testing.assert_allclose(compiled[name], value, rtol=1e-3, atol=1e-4)
    assert re.search(r"first step, in which the network was compiled, took \d", capsys.readouterr().out)


def test_what_cannot_be_compiled_is_one_sentence():
    with pytest.raises(UserError, match=r"Paddle trains without trainer\.compile"):
        refuse_unsupported(load_config(["framework=paddle", "trainer.compile=true"]))
    words = ["framework=lightning", "task=instance_segmentation", "trainer.compile=true"]
    network = torch.nn.Identity()
    network.takes_targets = True
    with pytest.raises(UserError, match="chooses by values and cannot be compiled"):
        in_torch.compile_network(load_config(words), network)

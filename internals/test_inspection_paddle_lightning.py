"""What is looked at inside a training: the same figures in both frameworks as by hand, and whom NaN and leaks name."""

import os
import subprocess
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
import torch

from paths import TEMPLATE
from src.kit.config import UserError, load_config
from src.kit.errors import find_layer
from src.kit.lightning.inspection import TorchLayers
from src.kit.lightning.inspection import sample as sample_torch
from src.kit.paddle.inspection import PaddleLayers
from src.kit.report import write_report
from src.kit.run import Run
from src.kit.storage import read_layers
from src.kit.trackers import Tracker
from src.kit.training import MemoryWatch
from src.kit.training.inspection import GpuMonitor
from src.kit.weights import load_weights
from tests.support import fit

FRAMEWORKS = ("lightning", "paddle")
IMAGES = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
WEIGHTS = [
    np.random.default_rng(seed).normal(size=shape).astype(np.float32) for seed, shape in ((1, (4, 6)), (2, (6, 3)))
]


def two_layers(framework: str):
    """x -> relu(x A) B without biases, what measures it, and the step x -> sum(y^2), backwards."""
    if framework == "lightning":
        network = torch.nn.Sequential(torch.nn.Linear(4, 6, False), torch.nn.ReLU(), torch.nn.Linear(6, 3, False))
        for layer, array in zip((network[0], network[2]), WEIGHTS, strict=True):
            layer.weight.data = torch.tensor(array.T.copy())
        return network, TorchLayers(network), torch.tensor
    linear = paddle.nn.Linear
    network = paddle.nn.Sequential(linear(4, 6, bias_attr=False), paddle.nn.ReLU(), linear(6, 3, bias_attr=False))
    for layer, array in zip((network[0], network[2]), WEIGHTS, strict=True):
        layer.weight.set_value(array)
    return network, PaddleLayers(network), paddle.to_tensor


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_what_is_measured_is_what_a_calculation_by_hand_gives(framework):
    network, layers, tensor = two_layers(framework)
    layers.watch()
    (network(tensor(IMAGES)) ** 2).sum().backward()
    first = np.maximum(IMAGES @ WEIGHTS[0], 0)
    last = 2 * first @ WEIGHTS[1]
    gradients = [IMAGES.T @ (last @ WEIGHTS[1].T * (first > 0)), first.T @ last]
    outputs = layers.activations()
    assert list(outputs) == ["0", "1", "2"]
    assert outputs["1"] == (pytest.approx(first.mean(), rel=1e-5), pytest.approx((first == 0).mean(), abs=1e-6))
    assert layers.activations() == outputs, "nothing is recorded any more"
    norms = layers.fetch([layers.gradient_norms()])[0]
    np.testing.assert_allclose(norms, [np.linalg.norm(each) for each in gradients], rtol=1e-5)
    values, samples = layers.gradients()
    expected = [[each.mean(), np.abs(each).max(), 0] for each in gradients]
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)
    for found, each in zip(samples, gradients, strict=True):
        np.testing.assert_allclose(np.sort(found), np.sort(each.ravel()), rtol=1e-4, atol=1e-5)
    parameter = layers.parameters[1]
    grad = np.array(parameter.grad.numpy())
    grad.flat[:2] = np.nan, np.inf
    parameter.grad = tensor(grad)
    assert layers.gradients()[0][1, 2] == pytest.approx(2 / 18)


def test_a_sample_comes_from_everywhere_in_a_tensor_whatever_the_order_of_its_axes():
    weights = torch.arange(64 * 64 * 9.0).reshape(64, 64, 3, 3)
    for each in (weights, weights.to(memory_format=torch.channels_last)):
        values = sample_torch(each).numpy().astype(int)
        assert 800 < len(values) == len(set(values)) <= 1024
        assert len(set(values % 9)) == 9, "all places of the kernel"


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_first_layer_that_is_not_finite_is_named(framework):
    network, layers, tensor = two_layers(framework)
    images = tensor(IMAGES)
    assert layers.first_not_finite(lambda: network(images)) == ""
    assert layers.first_not_finite(lambda: network(images * np.inf)) == "the input"
    assert layers.first_not_finite(lambda: network(tensor(np.full((5, 4), 3e38, np.float32)))) == "the output of 0"
    weight = layers.parameters[1]
    broken = np.array(weight.detach().numpy())
    broken[0, 0] = np.nan
    weight.set_value(broken) if framework == "paddle" else weight.data.copy_(torch.tensor(broken))
    assert layers.first_not_finite(lambda: network(images)) == "the weights 2.weight"


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_layer_that_fails_is_named_and_leaves_nothing_behind(framework):
    network, layers, tensor = two_layers(framework)
    kit = import_module(f"src.kit.{framework}")
    norms = {"lightning": torch.nn.BatchNorm1d, "paddle": paddle.nn.BatchNorm1D}
    holder = (torch if framework == "lightning" else paddle).nn.Sequential(network, norms[framework](3))
    hooks = [layer._forward_hooks if framework == "lightning" else layer._forward_post_hooks for layer in network]
    for broken in (
        lambda: kit.list_layers(holder, (5, 9)),
        lambda: layers.first_not_finite(lambda: network(tensor(IMAGES[:, :3]))),
    ):
        with pytest.raises((RuntimeError, ValueError)) as error:
            broken()
        assert not any(hooks)
    assert find_layer(error.value).startswith("0: Linear(in_features=4, out_features=6")
    passes = [lambda: holder(tensor(IMAGES)), lambda: network(tensor(IMAGES[:, :3]))]
    norm, momentum = holder[1], "momentum" if framework == "lightning" else "_momentum"
    norm.eval()
    before = getattr(norm, momentum)
    with pytest.raises((RuntimeError, ValueError)):
        import_module(f"src.kit.{framework}.recipes").update_statistics(holder, passes)
    assert (getattr(norm, momentum), norm.training) == (before, False)


class Recorder(Tracker):
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.histograms: dict[int, dict[str, np.ndarray]] = {}

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self.rows.append({"step": step, **metrics})

    def log_histograms(self, values: Mapping[str, np.ndarray], step: int) -> None:
        self.histograms.setdefault(step, {}).update(values)


def configure(folder: Path, framework: str, *words: str):
    base = ["model=small_cnn", "data=digits", "data.batch_size=64", "tracker=none", "trainer.limit_train_batches=4"]
    base += [f"framework={framework}", f"output_dir={folder.as_posix()}", "trainer.max_epochs=1"]
    return load_config([*base, *words])


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_run_records_its_layers_and_their_change_is_that_of_its_checkpoints(framework, tmp_path):
    words = ["trainer.inspect.every_n_steps=2", "trainer.checkpoint.every_n_steps=1", "trainer.checkpoint.keep_last=9"]
    cfg = configure(tmp_path, framework, *words, "log_every_n_steps=2")
    with Run(cfg) as run:
        run.tracker = recorder = Recorder()
        (run.path / "layers.jsonl").write_text('{"step": 1, "layers": {}}\n{"step": 3, "layers": {}}\n{"st', "utf-8")
        fit(cfg, run)
    rows = read_layers(run.path)
    assert [row["step"] for row in rows] == [1, 2, 4], "a resumed run takes step 3 again"
    folders = {int(path.name.rpartition("=")[2]): path for path in (run.path / "checkpoints").glob("epoch=*")}
    before, after = (weights_at(folders[step]) for step in (1, 2))
    found = rows[1]["layers"]
    for layer in (name for name, each in found.items() if "change" in each):
        parts = [f"{layer}.{part}" for part in ("weight", "bias") if f"{layer}.{part}" in before]
        old, new = (np.concatenate([each[part].ravel() for part in parts]) for each in (before, after))
        expected = np.linalg.norm(new - old) / np.linalg.norm(old)
        if all(before[part].size <= 1024 for part in parts):  # else a sample
            assert found[layer]["change"] == pytest.approx(expected, rel=1e-4)
        assert found[layer]["change"] == pytest.approx(expected, rel=0.2)
    total = np.sqrt(sum(each["grad_norm"] ** 2 for each in found.values() if "grad_norm" in each))
    (logged,) = (row for row in recorder.rows if row["step"] == 2 and "train/grad_norm" in row)
    norms = (2 * logged["train/grad_norm"] - logged["train/grad_norm_max"], logged["train/grad_norm_max"])  # of 2 steps
    assert total in (pytest.approx(norms[0], rel=1e-4), pytest.approx(norms[1], rel=1e-4))
    assert set(recorder.histograms) == {2, 4}
    np.testing.assert_allclose(recorder.histograms[4]["weights/1.bias"], weights_at(folders[3])["1.bias"], atol=1e-7)
    assert "layers/1/change" in {key for row in recorder.rows for key in row}
    assert "All layers at step 4" in write_report(run.path).read_text("utf-8")


def weights_at(folder: Path) -> dict[str, np.ndarray]:
    return load_weights(folder / "model.safetensors")[0]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_training_that_diverges_names_step_and_layer(framework, tmp_path):
    cfg = configure(tmp_path, framework, "optimizer=sgd", "optimizer.lr=1e30", "scheduler=constant")
    with (
        pytest.raises(UserError, match=r"^The loss became \w+ at step 2 of epoch 1, first in the \w+"),
        Run(cfg) as run,
    ):
        fit(cfg, run)


def test_memory_that_grows_is_said_with_what_grew():
    watch = MemoryWatch(16, lambda: 0)
    watch.read()
    assert watch.check() == []
    kept = [np.ones(5 << 20) for _ in range(4)]  # above 32 MiB each is new memory, whatever the process has freed
    assert watch.read()["memory/ram_mib"] > 160
    (sentence,) = watch.check()
    assert "RAM has grown by" in sentence
    assert "+4 of type ndarray with 160 MiB more" in sentence
    assert watch.check() == [], "said once"
    assert len(kept) == 4


def test_a_gpu_tells_what_it_can_and_no_gpu_nothing(monkeypatch):
    class Refusal(Exception):
        pass

    def refuse(handle: object) -> float:
        raise Refusal

    library = SimpleNamespace(
        NVMLError=Refusal,
        NVML_TEMPERATURE_GPU=0,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetUtilizationRates=lambda handle: SimpleNamespace(gpu=97),
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(used=3 << 20),
        nvmlDeviceGetTemperature=lambda handle, sensor: 61,
        nvmlDeviceGetPowerUsage=refuse,
    )
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    monkeypatch.setitem(sys.modules, "pynvml", library)
    assert GpuMonitor().read() == {"gpu/utilisation": 97, "gpu/memory_mib": 3, "gpu/temperature": 61}
    assert GpuMonitor(asked=False).read() == {}
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert GpuMonitor().read() == {}


def test_the_debugger_opens_at_a_step_and_where_an_error_arose():
    lines = ["from src.kit.errors import run_main, stop_at", "def loop(step):", "  stop_at(step)", "def main(argv):"]
    lines += [
        "  inside = 6 * len(argv)",
        "  for step in (1, 2, 3):",
        "    loop(step)",
        "  raise ValueError",
        "run_main(main)",
    ]
    words = [sys.executable, "-c", "\n".join(lines), "data=digits", "--debugger"]
    refused = subprocess.run([*words, "2"], cwd=TEMPLATE, input="", capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: --debugger 2 waits for what you type, and this is no terminal")
    mine, its = os.openpty()
    started = subprocess.Popen([*words, "2"], cwd=TEMPLATE, stdin=its, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    os.write(mine, b"p inside * 7, step\nc\np inside * 8, step\nq\n")
    said = started.communicate(timeout=60)[0].decode()
    os.close(mine)
    os.close(its)
    assert "(42, 2)" in said, said
    assert "(48, 3)" in said[said.index("ValueError") :], said
    assert started.returncode == 1

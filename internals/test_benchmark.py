"""The performance benchmark: what its timer counts, how long a turn is, peaks, utilisation, table and picture."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from paths import TEMPLATE
from scripts.benchmark import main, print_table, write_results
from src.kit.benchmarks.training import SIDES, StepTimer, draw_bars, known_median, multiplication_rate, shorten
from src.kit.config.compose import load_config
from src.kit.errors import UserError
from src.kit.hardware.probe import Answer, SystemProbe, Utilisation, peak_flops


def run_timer(epochs: int, batches: int, seconds: float = 0.01) -> tuple[StepTimer, list[str]]:
    """A training whose first epoch is slow, and whose validation takes as long as three steps."""
    waits: list[str] = []
    timer = StepTimer(lambda: waits.append("wait"))
    timer.start(epochs)
    for epoch in range(epochs):
        for step in range(1, batches + 1):
            time.sleep(seconds * (1 + 4 * (epoch == 0 and epochs > 1)))
            timer.step(epoch, step, batches)
        time.sleep(3 * seconds)
        timer.epoch(epoch, {})
    return timer, waits


def test_one_epoch_counts_after_the_warm_up():
    timer, waits = run_timer(epochs=1, batches=8)
    assert (timer.steps, len(timer.windows), len(waits)) == (5, 1, 2)
    begin, end = timer.windows[0]
    assert end - begin > 0.045
    assert len(timer.validations) == 1
    assert timer.validations[0] >= 0.029


def test_of_several_epochs_the_first_does_not_count_and_validation_is_none_of_the_steps():
    timer, _ = run_timer(epochs=3, batches=4)
    assert (timer.steps, len(timer.windows), len(timer.validations)) == (6, 2, 2)
    (_, first_end), (second_begin, _) = timer.windows
    assert second_begin - first_end > 0.039  # the validation, and a step that is no whole one


def test_an_epoch_of_two_steps_is_enough():
    timer, _ = run_timer(epochs=2, batches=2, seconds=0.001)
    assert (timer.steps, len(timer.windows)) == (1, 1)


@pytest.mark.parametrize(
    ("batches", "steps", "val_steps", "expected"),
    [
        (1000, 47, 9.0, (50, 5, 1)),
        (20, 200, 0.0, (20, 100, 11)),
        (20, 200, 20.0, (20, 100, 6)),
        (2, 5, 0.0, (2, 100, 4)),
    ],
)
def test_a_turn_is_a_part_of_an_epoch_or_several(batches, steps, val_steps, expected):
    cfg = load_config([])
    short = shorten(cfg, batches, 100, steps, val_steps)
    keys = short.trainer
    assert (keys.limit_train_batches, keys.limit_val_batches, keys.max_epochs) == expected
    assert cfg.trainer.limit_train_batches == 1.0


def test_rates_of_products_wait_for_the_device():
    waits: list[float] = []

    def wait() -> None:
        waits.append(time.perf_counter())
        time.sleep(0.05)

    rate = multiplication_rate(lambda: time.sleep(0.01) or 100, wait, 0.1)
    assert len(waits) == 2
    assert 0 < rate < 10000 * 0.1 / 0.15 * 1.1  # products of 0.01 s, and 0.05 s of waiting


def test_the_middle_is_of_what_is_known():
    assert known_median([None, 3.0, 1.0, None, 2.0]) == 2.0
    assert known_median([None, None]) is None


# names as nvidia-smi and the frameworks tell them
@pytest.mark.parametrize(
    ("gpu", "half", "single"),
    [
        ("NVIDIA H200", 989e12, 494e12),
        ("NVIDIA H100 80GB HBM3", 989e12, 494e12),
        ("NVIDIA H100 PCIe", 756e12, 378e12),
        ("NVIDIA A100-SXM4-80GB", 312e12, 156e12),
        ("NVIDIA L4", 121e12, 60e12),
        ("NVIDIA L40", 181e12, 90.5e12),
        ("NVIDIA L40S", 362e12, 183e12),
        ("NVIDIA A10", 125e12, 62.5e12),
        ("NVIDIA GeForce RTX 4090", 165.2e12, 82.6e12),
        ("Tesla T4", 65e12, 8.1e12),
        ("Tesla V100-SXM2-16GB", 125e12, 15.7e12),
    ],
)
def test_peaks_of_known_gpus(gpu, half, single):
    assert peak_flops(gpu, "16-mixed") == pytest.approx(half)
    assert peak_flops(gpu, "32-true") == pytest.approx(single)
    old = "T4" in gpu or "V100" in gpu
    assert peak_flops(gpu, "bf16-mixed") == (None if old else pytest.approx(half))


@pytest.mark.parametrize(
    "gpu",
    [
        "",
        "NVIDIA A10G",
        "NVIDIA GH200 480GB",
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA RTX A4000",
    ],
)
def test_other_gpus_have_no_known_peak(gpu):
    assert peak_flops(gpu, "bf16-mixed") is None


class Recorded(SystemProbe):
    """Answers nvidia-smi's question with one text after the other."""

    def __init__(self, *answers: str) -> None:
        super().__init__()
        self.answers, self.commands = list(answers), []

    def run(self, command):
        self.commands.append(command)
        return Answer(0, self.answers.pop(0)) if self.answers else None


def test_utilisation_is_the_mean_within_the_windows(monkeypatch):
    monkeypatch.setattr("src.kit.hardware.probe.POLL_S", 0.02)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    machine = Recorded("80\n", "[N/A]\n", "90\n")
    begin = time.perf_counter()
    with Utilisation(probe=machine) as gpu:
        time.sleep(0.15)
    assert [value for _, value in gpu.samples] == [80.0, 90.0]
    assert gpu.mean([(begin, time.perf_counter())]) == 85.0
    assert gpu.mean([(begin, gpu.samples[0][0])]) == 80.0
    assert gpu.mean([]) is None
    assert "--id=2" in machine.commands[0]


def test_without_a_gpu_nothing_is_asked():
    machine = Recorded("80\n")
    with Utilisation(asked=False, probe=machine) as gpu:
        time.sleep(0.02)
    assert machine.commands == []
    assert gpu.mean([(0, 1e12)]) is None


def result(**changes):
    side = {"samples_per_s": 1234.0, "step_ms": 5.678, "epoch_s": 9.5, "mfu": 0.321, "gpu_busy": None}
    side |= {"allocated_mib": None, "reserved_mib": None, "rounds_samples_per_s": [1200.0, 1234.0, 1300.0]}
    keys = {"model": "net", "data": "photos", "framework": "none", "precision": "32-true", "device": "CPU"}
    figures = {"batch_size": 8, "steps": 7, "samples": 56, "step_flops": 2_500_000_000, "peak_flops": 4e10}
    texts = {"peak_of": "measured matrix product", "memory_mib": 512, "validation_s": 1.25}
    ratios = {"ours / by_hand": 0.98, "ours / synthetic": 0.91}
    return keys | figures | texts | {"sides": dict.fromkeys(SIDES, side | changes), "ratios": ratios}


def test_the_table_shows_every_figure_and_a_dash_where_there_is_none(capsys):
    print_table(result())
    out = capsys.readouterr().out
    for text in ("net, photos", "1,234", "5.68", "32.1%", "2.500 GFLOP", "by hand: 0.98", "512 MiB", "measured matrix"):
        assert text in out
    busy = next(line for line in out.splitlines() if "GPU busy" in line)
    assert busy.count("-") == 3
    print_table(result(gpu_busy=87.4, allocated_mib=1500) | {"step_flops": None})
    out = capsys.readouterr().out
    assert ("87 %" in out, "1,500" in out, "unknown operations" in out) == (True, True, True)


@pytest.mark.parametrize("mfu", [0.3, None])
def test_the_picture_has_a_bar_for_each_side(tmp_path, mfu):
    draw_bars(result(mfu=mfu), tmp_path / "benchmark.png")
    with Image.open(tmp_path / "benchmark.png") as opened:
        pixels = np.asarray(opened.convert("RGB")).astype(int)
    for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00), (0x00, 0x9E, 0x73)):
        assert (pixels == colour).all(axis=-1).sum() > 5000


def test_everything_is_left_in_a_folder_of_its_own(tmp_path):
    cfg = load_config([f"output_dir={tmp_path.as_posix()}"])
    folder = write_results(cfg, result())
    assert folder.parent == tmp_path / "benchmarks"
    assert folder.name.startswith(cfg.name)
    assert sorted(path.name for path in folder.iterdir()) == ["benchmark.json", "benchmark.png", "config.yaml"]
    assert json.loads((folder / "benchmark.json").read_text("utf-8"))["sides"].keys() == SIDES.keys()


@pytest.mark.parametrize("option", ["--seconds=0", "--rounds=0"])
def test_options_out_of_range_are_refused(option):
    with pytest.raises(UserError, match="must be above 0"):
        main([option])


def test_other_accelerators_are_refused():
    with pytest.raises(UserError, match="accelerator=mps"):
        main(["trainer.accelerator=mps"])


def test_keys_are_checked_before_a_framework_loads():
    command = [sys.executable, "scripts/benchmark.py", "modle=resnet18"]
    done = subprocess.run(command, cwd=TEMPLATE, capture_output=True, text=True, check=False)
    assert (done.returncode, "Did you mean model" in done.stderr) == (2, True)
    done = subprocess.run([*command[:2], "--help"], cwd=TEMPLATE, capture_output=True, text=True, check=True)
    assert "model=resnet18 data=cifar10" in done.stdout

"""The loading benchmark: what it counts, that sides take turns, and that the plain pipeline shows the same pictures."""

import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from paths import TEMPLATE
from scripts.benchmark_data import main, print_tables
from src.kit.benchmarks.training import PillowSamples, loading_rate, measure_in_turns, repeat_epochs, training_rate
from src.kit.errors import UserError
from src.kit.loading import ArrayImages, FileImages, Split


def test_sides_take_turns_and_the_first_round_does_not_count():
    calls = []

    def side(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    rates = measure_in_turns({"a": lambda: side("a"), "b": lambda: side("b")}, 2)
    assert calls == ["a", "b", "a", "b", "a", "b"]
    assert rates == {"a": [3.0, 5.0], "b": [4.0, 6.0]}


def test_rounds_end_in_time_and_say_what_they_measure():
    said: list[str] = []
    rates = measure_in_turns({"ours": lambda: time.sleep(0.02), "b": lambda: 1}, 50, 0.1, said.append)
    assert 1 <= len(rates["ours"]) == len(rates["b"]) <= 4
    assert said[:3] == ["warm-up: this project", "warm-up: b", "round 1 of 50: this project"]
    assert said[-1] == f"stopped after round {len(rates['b'])}: another one would not fit into 0 s"
    assert len(measure_in_turns({"a": lambda: 1}, 3, 0.0)["a"]) == 1


class Slow:
    """Batches of ten that take a hundredth of a second each, and a first one that takes long."""

    def __init__(self) -> None:
        self.epochs: list[int] = []

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)

    def __iter__(self):
        for number in range(4):
            time.sleep(0.2 if number == 0 and len(self.epochs) == 1 else 0.01)
            yield np.zeros((10, 1)), np.zeros(10)


def test_a_rate_is_images_a_second_after_the_first_batch():
    source = Slow()
    assert 300 < loading_rate(source, 0.3) <= 1000
    assert source.epochs[:3] == [0, 1, 2]  # it goes on with the next epoch


def test_training_counts_steps_until_the_device_is_done():
    class Trainer:
        steps = waits = 0

        def step(self, batch) -> None:
            self.steps += 1

        def wait(self) -> None:
            self.waits += 1
            time.sleep(0.1)

    trainer = Trainer()
    rate = training_rate(trainer, Slow(), 0.2)
    assert trainer.waits == 2
    assert rate == pytest.approx(10 * (trainer.steps - 1) / 0.3, rel=0.3)


def test_an_abandoned_iteration_is_closed():
    closed = []

    def batches():
        try:
            yield from range(9)
        finally:
            closed.append(True)

    iterator = repeat_epochs(batches())
    assert next(iterator) == 0
    iterator.close()
    assert closed == [True]


def test_the_plain_pipeline_opens_the_same_images(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), dtype=np.uint8)
    grey = PillowSamples(Split(ArrayImages(pixels), np.array([2, 1, 0]), ("a", "b", "c")), np.asarray)
    image, target = grey[3 + 1]  # the samples come again and again
    assert (target, len(grey) % 3) == (1, 0)
    assert np.array_equal(image, pixels[1, :, :, 0])
    path = tmp_path / "grey.png"
    Image.fromarray(pixels[0, :, :, 0]).save(path)
    files = PillowSamples(Split(FileImages([path], 8), np.array([0]), ("a", "b")), np.asarray)
    assert np.array_equal(files[0][0], np.repeat(pixels[0], 3, axis=2))


@pytest.mark.parametrize("option", ["--seconds=0", "--rounds=0", "--images=0"])
def test_options_out_of_range_are_refused(option):
    with pytest.raises(UserError, match="must be above 0"):
        main([option])


def test_only_classified_images_are_measured():
    with pytest.raises(UserError, match="data=wine holds the rows of a table, and this measures one class for each"):
        main(["task=tabular", "data=wine"])


def test_keys_are_checked_before_a_framework_loads():
    command = [sys.executable, "scripts/benchmark_data.py", "modle=resnet18"]
    done = subprocess.run(command, cwd=TEMPLATE, capture_output=True, text=True, check=False)
    assert (done.returncode, "Did you mean model" in done.stderr) == (2, True)
    done = subprocess.run([*command[:2], "--help"], cwd=TEMPLATE, capture_output=True, text=True, check=True)
    assert "data=cifar10 model=resnet18" in done.stdout
    assert "data.cache=" in done.stdout


def test_the_table_shows_rates_and_ratios(capsys):
    keys = {"data": "photos", "model": "net", "framework": "none", "workers": 2, "image_shape": [8, 9, 3]}
    print_tables({**keys, "rates": {"ours": 2000.0, "plain": 500.0}, "ratios": {"ours / plain": 4.0}})
    out = capsys.readouterr().out
    assert "photos 9 x 8" in out
    for text in ("2,000", "0.500", "ours / plain", "4.00"):
        assert text in out

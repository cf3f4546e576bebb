"""The learning-rate finder: what it recommends is where the loss falls fastest, and a good rate."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts.train import main
from src.kit.config import UserError
from src.kit.training import lr_find
from src.kit.training.lr_find import HIGHEST, LOWEST, STEPS, Rising, smooth, steepest

KEYS = ["model=small_cnn", "data=digits", "tracker=none"]


def test_the_steepest_place_is_found_whatever_the_batches_noise():
    rates = [Rising().lr(step) for step in range(STEPS)]
    assert (rates[0], rates[-1]) == (pytest.approx(LOWEST), pytest.approx(HIGHEST))
    assert np.ptp(np.diff(np.log(rates))) < 1e-9
    places = np.log10(rates)
    falling = 2.3 - 2 / (1 + np.exp(-4 * (places + 2.5)))  # steepest at 10^-2.5; it rises from 1 on
    losses = np.where(places < 0, falling, falling + 5 * places) + np.random.default_rng(0).normal(0, 0.01, STEPS)
    found = steepest(rates, losses.tolist())
    assert -2.8 < np.log10(found) < -2.2
    assert smooth([3.0, 3.0, 3.0]).tolist() == pytest.approx([3, 3, 3])
    with pytest.raises(UserError, match="fell at no learning rate"):
        steepest(rates, [1.0 + step for step in range(STEPS)])


@pytest.mark.parametrize("framework", ["lightning", "paddle"])
def test_a_rate_is_found_and_drawn_and_nothing_else_is_left(framework, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(lr_find, "STEPS", 40)
    main(["--lr-find", f"framework={framework}", f"output_dir={tmp_path.as_posix()}", *KEYS])
    (folder,) = tmp_path.iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["lr-find.csv", "lr-find.png"]
    with (folder / "lr-find.csv").open(encoding="utf-8", newline="") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert 25 < len(rows) <= 40
    assert [row["lr"] for row in rows] == pytest.approx([Rising().lr(step) for step in range(len(rows))])
    chosen = steepest([row["lr"] for row in rows], [row["loss"] for row in rows])
    assert f"optimizer.lr={chosen:.2g}" in capsys.readouterr().out
    assert 1e-4 < chosen < 0.1, "AdamW on the digits learns between these"
    assert Image.open(folder / "lr-find.png").size[0] > 500


def test_what_has_no_rate_is_one_sentence(tmp_path: Path):
    with pytest.raises(UserError, match="model=trees has no learning rate"):
        main(["--lr-find", "task=tabular", "model=trees", f"output_dir={tmp_path.as_posix()}"])
    assert not list(tmp_path.iterdir())

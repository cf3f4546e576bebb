"""The loading benchmark, run for a moment on files."""

import json

import numpy as np
import pytest
from PIL import Image

from scripts.benchmark_data import main
from src.kit.config.compose import load_config
from src.kit.loading import FileImages, Split
from src.kit.paddle import benchmark as paddle_benchmark


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(20):
            coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
            coarse.resize((80, 60), Image.Resampling.BICUBIC).save(tmp_path / name / f"{number}.jpg", quality=95)
    return tmp_path


def test_it_measures_all_sides_in_one_run(photos, capsys):
    data = ["data=image_folder", f"data.root={photos.as_posix()}", "data.image_size=32", "data.batch_size=8"]
    main(["framework=paddle", "model=small_cnn", *data, "--seconds=0.1", "--rounds=1", "--json"])
    result = json.loads(capsys.readouterr().out)
    assert result["rates"].keys() == {"ours", "plain", "cached", "synthetic", "real"}
    assert result["ratios"].keys() == {"ours / plain", "cached / plain", "real / synthetic"}
    assert min(result["rates"].values()) > 0
    assert (result["images"], result["image_shape"], result["framework"]) == (28, [32, 32, 3], "paddle")
    rates = result["rates"]
    assert result["ratios"]["ours / plain"] == pytest.approx(rates["ours"] / rates["plain"])


def test_the_plain_pipeline_gives_nearly_the_same_batches(photos):
    paths = sorted((photos / "cat").iterdir())
    split = Split(FileImages(paths, 32), np.arange(20) % 2, ("a", "b"))
    cfg = load_config(["framework=paddle", "data=image_folder", "data.batch_size=20"])
    images, targets = next(iter(paddle_benchmark.plain_loader(cfg, split, 0)))
    assert tuple(images.shape) == (20, 3, 32, 32)
    assert targets.numpy().tolist().count(1) >= 1
    own = (split.images.get(np.arange(20)) / 255 - np.array(cfg.data.mean)) / np.array(cfg.data.std)
    found = images.numpy().transpose(0, 2, 3, 1)
    # shuffled: each has its nearest among ours, at a small distance
    distances = np.abs(found[:, None] - own[None]).mean(axis=(2, 3, 4)).min(axis=1)
    assert distances.max() < 0.25

"""What must hold for the benchmarks of training and of loading in every framework."""

import json
import multiprocessing
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts.benchmark import main
from scripts.benchmark_data import main as benchmark_data
from src.kit.config.compose import load_config
from src.kit.errors import UserError
from src.kit.loading import ArrayImages, FileImages, Split, images

STEM = 2 * 112 * 112 * 64 * 3 * 7 * 7  # of ResNet's first convolution, whose input needs no gradient

SAMPLES = 1259  # of the digits' training split


class BenchmarkTests:
    """Subclasses name the framework."""

    framework: str

    def flops(self, model: str, size: int, batch: int = 1) -> int:
        """Of one step of a classifier of 1,000 classes."""
        cfg = load_config([f"framework={self.framework}", f"model={model}", f"data.batch_size={batch}"])
        images = ArrayImages(np.zeros((batch, size, size, 3), np.uint8))
        split = Split(images, np.zeros(batch, np.int64), tuple(map(str, range(1000))))
        return import_module(f"src.kit.{self.framework}.benchmark").Trainer(cfg, split).flops()

    def test_operations_of_resnet18_are_the_published_ones(self):
        # 1.82 x 10^9 multiply-adds, torchvision's documentation; forward once and backward twice, but for the stem
        assert (self.flops("resnet18", 224) + STEM) / 3 / 2 == pytest.approx(1.82e9, rel=0.02)
        assert self.flops("resnet18", 32, batch=2) == 2 * self.flops("resnet18", 32)

    def test_depthwise_convolutions_count_their_own_channel_only(self):
        # EfficientNet-B0: 0.39 x 10^9 multiply-adds (Tan & Le 2019, arXiv 1905.11946, table 2)
        stem = 2 * 112 * 112 * 32 * 3 * 3 * 3
        assert (self.flops("efficientnet", 224) + stem) / 3 / 2 == pytest.approx(0.39e9, rel=0.02)

    @pytest.mark.parametrize("keys", [["data.batch_size=256"], ["data.batch_size=1000", "trainer.max_epochs=1"]])
    def test_it_measures_the_sides_and_leaves_figures_and_a_picture(self, tmp_path, capsys, keys):
        given = [f"framework={self.framework}", "data=digits", "model=small_cnn", f"output_dir={tmp_path.as_posix()}"]
        given.append("trainer.early_stopping.patience=0")  # would stop the training before the time is full
        main([*given, *keys, "--seconds=0.1", "--rounds=2", "--json"])
        result = json.loads(capsys.readouterr().out)
        assert result["sides"].keys() == {"ours", "by_hand", "synthetic"}
        for side in result["sides"].values():
            assert len(side["rounds_samples_per_s"]) == 2
            assert side["samples_per_s"] == pytest.approx(1000 * result["samples"] / result["steps"] / side["step_ms"])
            assert side["epoch_s"] == pytest.approx(result["samples"] / side["samples_per_s"])
            assert side["mfu"] > 0
        assert result["samples"] == SAMPLES
        assert result["steps"] == -(-SAMPLES // result["batch_size"])
        assert (result["framework"], result["precision"]) == (self.framework, "32-true")
        assert min(result["ratios"].values()) > 0.05
        assert result["memory_mib"] > 100
        assert result["validation_s"] > 0
        (folder,) = (tmp_path / "benchmarks").iterdir()
        assert json.loads((folder / "benchmark.json").read_text("utf-8")) == result
        assert (folder / "benchmark.png").stat().st_size > 5000
        assert [path.name for path in tmp_path.iterdir()] == ["benchmarks"], "the trainings left nothing"

    def test_files_are_decoded_once_for_all_sides_and_rounds(self, tmp_path, monkeypatch, capsys):
        for number in range(24):
            folder = tmp_path / "images" / ("cat", "dog")[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 32), (number, 0, 0)).save(folder / f"{number}.png")
        read: list[str] = []
        whole = images.decode
        monkeypatch.setattr(images, "decode", lambda path, *rest: read.append(str(path)) or whole(path, *rest))
        data = ["data=image_folder", f"data.root={(tmp_path / 'images').as_posix()}", "data.image_size=32"]
        keys = [*data, "data.batch_size=4", "data.num_workers=0", f"output_dir={tmp_path.as_posix()}"]
        main([f"framework={self.framework}", "model=small_cnn", *keys, "--seconds=0.05", "--rounds=1", "--json"])
        assert json.loads(capsys.readouterr().out)["samples"] == 16
        assert len(read) == len(set(read)) == 20, "16 to train on and 4 to validate on"

    def test_an_epoch_of_one_batch_is_refused(self, tmp_path: Path):
        with pytest.raises(UserError, match="two batches an epoch"):
            main([f"framework={self.framework}", f"data.batch_size={SAMPLES}", f"output_dir={tmp_path.as_posix()}"])


class LoadingBenchmarkTests:
    """Subclasses name the framework; run for a moment on files."""

    framework: str

    @pytest.fixture
    def photos(self, tmp_path):
        rng = np.random.default_rng(0)
        for name in ("cat", "dog"):
            (tmp_path / name).mkdir()
            for number in range(20):
                coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
                coarse.resize((80, 60), Image.Resampling.BICUBIC).save(tmp_path / name / f"{number}.jpg", quality=95)
        return tmp_path

    def test_it_measures_all_sides_in_one_run(self, photos, capsys):
        data = ["data=image_folder", f"data.root={photos.as_posix()}", "data.image_size=32", "data.batch_size=8"]
        benchmark_data(
            [f"framework={self.framework}", "model=small_cnn", *data, "--seconds=0.1", "--rounds=1", "--json"]
        )
        assert not multiprocessing.active_children(), "the workers of the plain pipeline have ended"
        result = json.loads(capsys.readouterr().out)
        assert result["rates"].keys() == {"ours", "plain", "cached", "synthetic", "real"}
        assert result["ratios"].keys() == {"ours / plain", "cached / plain", "real / synthetic"}
        assert min(result["rates"].values()) > 0
        assert (result["images"], result["image_shape"], result["framework"]) == (28, [32, 32, 3], self.framework)
        rates = result["rates"]
        assert result["ratios"]["ours / plain"] == pytest.approx(rates["ours"] / rates["plain"])

    def test_the_plain_pipeline_gives_nearly_the_same_batches(self, photos):
        paths = sorted((photos / "cat").iterdir())
        split = Split(FileImages(paths, 32), np.arange(20) % 2, ("a", "b"))
        cfg = load_config([f"framework={self.framework}", "data=image_folder", "data.batch_size=20"])
        images, targets = next(iter(import_module(f"src.kit.{self.framework}.benchmark").plain_loader(cfg, split, 0)))
        assert tuple(images.shape) == (20, 3, 32, 32)
        assert targets.numpy().tolist().count(1) >= 1
        own = (split.images.get(np.arange(20)) / 255 - np.array(cfg.data.mean)) / np.array(cfg.data.std)
        found = images.numpy().transpose(0, 2, 3, 1)
        # shuffled: each has its nearest among ours, at a small distance
        distances = np.abs(found[:, None] - own[None]).mean(axis=(2, 3, 4)).min(axis=1)
        assert distances.max() < 0.25

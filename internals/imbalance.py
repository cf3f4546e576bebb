"""Training on skewed digits; test_imbalance_lightning.py and test_imbalance_paddle.py run it in their framework."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.kit.catalog import build_dataset
from src.kit.config.compose import load_config
from src.kit.run import Run
from src.kit.training import find_checkpoint, load_task
from src.tasks import classification
from tests.support import fit, predict

RARE = (1, 3, 8)
KEPT = 0.05  # of the rare classes' training images: six of each
SEEDS = (0, 1)  # for the method that gains little, a mean, so that it does not win by luck
# method -> (overrides, how much the macro-F1 must rise at least, by how many of the seeds)
METHODS = {
    "weighted": (["data.sampler=weighted"], 0.1, 1),
    "oversample": (["data.sampler=oversample"], 0.1, 1),
    # an epoch is a fourteenth as long: as many steps
    "undersample": (["data.sampler=undersample", "trainer.max_epochs=112"], 0.1, 1),
    "balanced": (["loss.class_weights=balanced"], 0.1, 1),
    "effective": (["loss.class_weights=effective"], 0.1, 1),
    "focal": (["loss=focal"], 0.01, 2),
}


def write_skewed_digits(root: Path) -> Path:
    """An image folder of the digits with few images of the `RARE` ones, but a test split of all of them."""
    for split in ("train", "val", "test"):
        part = build_dataset(load_config([]), split)
        for number in range(10):
            members = np.flatnonzero(part.targets == number)
            if split != "test" and number in RARE:
                members = members[: max(2, round(KEPT * len(members)))]
            folder = root / split / str(number)
            folder.mkdir(parents=True)
            for index, image in zip(members, part.images.get(members), strict=True):
                Image.fromarray(image[..., 0]).save(folder / f"{index}.png")
    return root


class ImbalanceTests:
    """Subclasses name the framework."""

    framework: str

    @pytest.fixture(scope="class")
    def data(self, tmp_path_factory) -> Path:
        return write_skewed_digits(tmp_path_factory.mktemp("skewed"))

    def macro_f1(self, data: Path, folder: Path, overrides: list[str], seeds: int) -> list[float]:
        """The macro-F1 on the test split after equally many steps, for each of the first seeds."""
        scores = []
        for seed in SEEDS[:seeds]:
            keys = ["data=image_folder", f"data.root={data.as_posix()}", "data.image_size=8", "data.augment=none"]
            keys += ["data.batch_size=32", "trainer.max_epochs=8", "optimizer.lr=0.003", "tracker=none"]
            keys += ["data.num_workers=0", "data.cache=memory", f"output_dir={folder.as_posix()}", f"seed={seed}"]
            cfg = load_config([f"framework={self.framework}", *keys, *overrides])
            with Run(cfg) as run:
                fit(cfg, run)
            outputs, targets = classification.concatenate(predict(cfg, find_checkpoint(run.path, "last"), "test"))
            scores.append(load_task("classification").evaluate([(outputs, targets)], list("0123456789"))["f1_macro"])
        return scores

    @pytest.fixture(scope="class")
    def plain(self, data, tmp_path_factory) -> list[float]:
        return self.macro_f1(data, tmp_path_factory.mktemp("plain"), [], len(SEEDS))

    @pytest.mark.parametrize("method", METHODS)
    def test_macro_f1_rises(self, data, plain, tmp_path, method):
        overrides, rise, seeds = METHODS[method]
        before, score = np.mean(plain[:seeds]), np.mean(self.macro_f1(data, tmp_path, overrides, seeds))
        print(f"macro-F1 on skewed digits, {self.framework}: {before:.3f} without, {score:.3f} with {method}")
        assert score > before + rise

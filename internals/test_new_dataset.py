"""A new data set is one file of code and one YAML: every tool knows it at once."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from paths import TEMPLATE

CODE = '''"""Leaves: photos in two .npy files."""

from pathlib import Path
from typing import Annotated

import numpy as np

from src.kit.config import Range, UserError
from src.kit.loading import ArrayImages, Split
from src.kit.splitting import SplitRule


def build(split: SplitRule, *, root: str = "data/leaves", image_size: Annotated[int, Range(min=1)] = 16) -> Split:
    """Colour images (N, image_size, image_size, 3).

    Args:
        root: Folder of images.npy and labels.npy.
        image_size: Height and width in pixels.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist: copy images.npy and labels.npy there.")
    images, labels = np.load(folder / "images.npy"), np.load(folder / "labels.npy")
    chosen = split.choose(labels, test=True)
    return Split(ArrayImages(images[chosen], image_size), labels[chosen], ("ash", "beech", "oak"), ids=chosen)
'''
KEYS = """name: leaves
batch_size: 16
mean: [0.5, 0.5, 0.5]
std: [0.25, 0.25, 0.25]
val_fraction: 0.2
test_fraction: 0.2
"""
FOLDS = """
import numpy as np
from src.kit.catalog import build_dataset
from src.kit.config import load_config
folds = [load_config(["data=leaves", "data.folds=3", f"data.fold={number}"]) for number in (1, 2, 3)]
val = np.concatenate([build_dataset(cfg, "val").ids for cfg in folds])
rest = np.concatenate([build_dataset(folds[0], split).ids for split in ("train", "val")])
assert sorted(val) == sorted(rest), "together, the folds are all samples but those of the test split"
train = build_dataset(load_config(["data=leaves", "data.classes=[ash,oak]"]), "train")
print(len(val), train.images.shape, train.classes)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A copy of the project with a data set of its own."""
    root = tmp_path_factory.mktemp("project")
    for name in ("src", "scripts"):
        shutil.copytree(TEMPLATE / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "src" / "datasets" / "leaves.py").write_text(CODE, "utf-8")
    (root / "src" / "configs" / "data" / "leaves.yaml").write_text(KEYS, "utf-8")
    (root / "data" / "leaves").mkdir(parents=True)
    rng = np.random.default_rng(0)
    np.save(root / "data" / "leaves" / "images.npy", rng.integers(0, 256, (150, 16, 16, 3), np.uint8))
    np.save(root / "data" / "leaves" / "labels.npy", np.arange(150) % 3)
    return root


def run(project: Path, *arguments: str) -> str:
    """What a command of the project prints, errors included."""
    done = subprocess.run([sys.executable, *arguments], cwd=project, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_folds_classes_and_the_signatures_default(project):
    assert run(project, "-c", FOLDS).strip() == "120 (16, 16, 3) ('ash', 'oak')"


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (("download.py", "data=leaves"), "leaves needs no download"),
        (("show_data.py", "data=leaves"), "The first images of leaves"),
        (("validate_data.py", "data=leaves"), "150 images of leaves"),
        (("make_shards.py", "data=leaves", "--out", "shards"), "train: 90 samples"),
        (("train.py", "data=leaf"), "Did you mean leaves?"),
        (("train.py", "data=leaves", "data.image_size=0"), "data.image_size must be an integer of at least 1, not 0"),
        (("train.py", "data=leaves", "data.image_sise=8"), "Did you mean data.image_size?"),
        (("show_data.py", "data=leaves", "data.root=nowhere"), "nowhere does not exist: copy images.npy"),
    ],
)
def test_scripts_know_it(project, command, expected):
    assert expected in run(project, f"scripts/{command[0]}", *command[1:])


def test_it_can_be_mixed_with_others(project):
    keys = ["data=mixture", "data.sources=[{data: leaves}, {data: digits}]", "data.image_size=8"]
    imports = "from src.kit.catalog import build_dataset; from src.kit.config import load_config"
    code = f"{imports}; val = build_dataset(load_config({keys}), 'val'); print(val.classes[:4], val.images.shape)"
    assert run(project, "-c", code).strip() == "('ash', 'beech', 'oak', '0') (8, 8, 1)"

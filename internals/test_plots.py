"""Pictures are written whole, of the right size, and show what they should; odd inputs don't break them."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from src.kit import report
from src.kit.loading import ArrayImages
from src.kit.report import draw_confusion, draw_images, draw_predictions, figures
from src.kit.report.figures import draw_curves, points, shorten
from src.kit.report.parts import draw_model_graph, group, model_table
from src.tasks import classification
from src.utils import visualization

ROWS = [
    {"epoch": 1, "step": 5, "lr": 0.1, "train/loss": 2.0, "val/loss": 2.1, "val/accuracy": 0.3, "epoch_s": 1.0},
    {"epoch": 2, "step": 10, "lr": 0.0, "train/loss": 1.0, "val/loss": math.nan, "val/accuracy": 0.6, "epoch_s": 1.0},
]


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_curves_of_loss_metrics_and_learning_rate(tmp_path: Path) -> None:
    written = draw_curves(ROWS, tmp_path / "pictures")
    assert [path.name for path in written] == ["loss.png", "metrics.png", "learning-rate.png"]
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == sorted(path.name for path in written)
    blue, vermillion = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)
    for colour in (blue, vermillion):
        assert (pixels(written[0]) == colour).all(axis=-1).any(), f"no line in {colour}"


def test_curves_of_one_epoch_and_of_none(tmp_path: Path) -> None:
    assert len(draw_curves(ROWS[:1], tmp_path)) == 3
    assert draw_curves([], tmp_path) == []


def test_one_epoch_has_one_tick_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(figures, "save_figure", lambda figure, path: drawn.append(figure) or path)
    draw_curves(ROWS[:1], tmp_path)
    for figure in drawn:
        (axes,) = figure.axes
        assert (axes.get_xlim(), list(axes.get_xticks())) == ((0.5, 1.5), [1])
    assert len(drawn) == 3


def test_points_leave_out_what_is_missing_or_not_finite() -> None:
    assert points([*ROWS, {"epoch": 3}], "val/loss") == ([1], [2.1])


@pytest.mark.parametrize("classes", [2, 10, 120])
def test_confusion_matrix_of_any_size(tmp_path: Path, classes: int) -> None:
    path = draw_confusion(
        np.eye(classes, dtype=int) * 7, [f"${index}_{{" for index in range(classes)], tmp_path / "a.png"
    )
    height, width, _ = pixels(path).shape
    assert 400 < height < 2400
    assert 400 < width < 2600


def test_confusion_matrix_with_an_absent_class(tmp_path: Path) -> None:
    assert draw_confusion(np.array([[3, 0], [0, 0]]), ["a", "b"], tmp_path / "a.png").is_file()


@pytest.mark.parametrize("channels", [1, 3])
def test_tiny_images_keep_their_sharp_pixels(tmp_path: Path, channels: int) -> None:
    board = (np.indices((8, 8)).sum(axis=0) % 2 * 255).astype(np.uint8)
    images = np.repeat(board[None, ..., None], channels, axis=-1)
    drawn = pixels(draw_images(np.repeat(images, 4, axis=0), ["board"] * 4, tmp_path / "a.png"))
    dark, light = (drawn.max(axis=-1) < 8).mean(), (drawn.min(axis=-1) > 247).mean()
    assert dark > 0.2, "smoothing would leave hardly any black"
    assert dark + light > 0.85


def test_predictions_of_large_photos_with_long_names(tmp_path: Path) -> None:
    images = np.zeros((3, 120, 160, 3), dtype=np.uint8)
    names = ["a very long name of a class", "狗", "$x_{"]
    path = draw_predictions(images, names, names[::-1], np.array([0.9, 0.8, 0.7]), tmp_path / "new" / "a.png")
    assert path.is_file()


def test_task_writes_its_two_pictures_for_a_part_of_the_split(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    images = ArrayImages(random.integers(0, 255, (40, 8, 8, 1), dtype=np.uint8))
    split = SimpleNamespace(images=images, classes=("a", "b", "c"))
    outputs = random.normal(size=(30, 3)).astype(np.float32)
    written = classification.Task().draw_predictions(
        [(outputs, random.integers(0, 3, 30))], split, OmegaConf.create(), tmp_path, "test"
    )
    assert [path.name for path in written] == ["test-confusion.png", "test-samples.png"]
    assert all(path.is_file() for path in written)


def test_shorten_keeps_the_end() -> None:
    assert shorten("short", 10) == "short"
    assert shorten("class name 77", 10) == "class…e 77"


def layer(name: str, kind: str = "Conv2d", parameters: int = 10) -> dict:
    return {"name": name, "type": kind, "output_shape": (1, 4, 2, 2), "parameters": parameters}


def test_deep_networks_are_grouped_by_the_beginning_of_the_name() -> None:
    names = ["stem", *(f"layer{i}.{j}.conv{k}" for i in range(4) for j in range(3) for k in range(3)), "head"]
    blocks = group([layer(name) for name in names])
    assert [block["name"] for block in blocks][:3] == ["stem", "layer0.0", "layer0.1"]
    assert len(blocks) == 14
    assert blocks[1]["type"] == "3 x Conv2d"
    assert blocks[1]["parameters"] == 30


def test_very_deep_networks_are_grouped_by_the_first_part() -> None:
    assert [block["name"] for block in group([layer(f"a.{index}.conv") for index in range(60)])] == ["a"]


def test_shallow_networks_are_drawn_layer_by_layer(tmp_path: Path) -> None:
    layers = [layer("stage.0.conv"), layer("stage.0.relu", "ReLU", 0), layer("head", "Linear", 5)]
    assert group(layers) == layers
    assert draw_model_graph(layers, tmp_path / "model_graph.png").is_file()


def test_table_counts_a_layer_that_is_called_twice_once() -> None:
    table = model_table([layer("conv", parameters=2**18), layer("relu", "ReLU", 0), layer("conv", parameters=2**18)])
    assert "262,144 parameters, 1 MiB" in table
    assert "4 x 2 x 2" in table


def test_the_public_module_draws_what_the_report_shows(tmp_path: Path) -> None:
    assert set(visualization.__all__) <= set(report.__all__)
    path = visualization.draw_confusion(np.array([[9, 1], [2, 8]]), ["cat", "dog"], tmp_path / "confusion.png")
    assert path.is_file()

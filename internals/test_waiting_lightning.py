"""A GPU is not made to wait: no training step and no evaluated batch of the project's own networks asks for values."""

from pathlib import Path

import pytest
import torch

from scene_training import TINY, write_digit_scenes
from src.kit.config import load_config
from src.models.lightning.instance_segmentation import mask_rcnn
from src.trainers import lightning
from waiting_lightning import Fetches, Operations, Tally, count

SMALL = ["framework=lightning", *TINY, "trainer.limit_train_batches=3", "trainer.limit_val_batches=3"]
SMALL += ["trainer.accelerator=cpu", "trainer.ema=0.9", "trainer.gradient_clip_val=1.0"]
DIGITS = [key for key in SMALL if not key.startswith(("data.image_size", "data.num_workers"))]
OWN = {
    "small_cnn": [*DIGITS, "data.cutmix_alpha=1.0", "optimizer=muon", "trainer.accumulate_grad_batches=2"],
    "speed_net": [*DIGITS, "model=speed_net", "loss=focal", "loss.class_weights=balanced", "optimizer=lion"],
    "tabular": [*DIGITS, "task=tabular"],
    "tabular_regression": [*DIGITS, "task=tabular_regression"],
    "deeplab": [*SMALL, "task=segmentation", "loss.focal=1.0", "loss.class_weights=balanced", "model.width=16"],
    "yolov10n": [*SMALL, "task=detection", "data.mosaic=0.5"],
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digit_scenes(tmp_path_factory.mktemp("data") / "digit_scenes")


def measure(folder: Path, scenes: Path, *keys: str) -> dict[str, Tally]:
    own = [f"data.root={scenes.as_posix()}", "data.batch_size=2"] if any("image_size" in key for key in keys) else []
    return count(load_config([*keys, *own, f"output_dir={folder.as_posix()}"]))


@pytest.mark.parametrize("name", sorted(OWN))
def test_no_step_and_no_evaluated_batch_waits(tmp_path: Path, scenes: Path, name: str) -> None:
    for phase, tally in measure(tmp_path, scenes, *OWN[name]).items():
        assert len(tally.launches) > 5, phase
        assert not tally.waits, phase


def test_batches_made_on_the_device_do_not_wait(tmp_path: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lightning, "choose_image_cache", lambda *_: "device")
    for tally in measure(tmp_path, scenes, *DIGITS, "data.augment=basic").values():
        assert not tally.waits


def test_a_detector_of_torchvision_gets_its_objects_for_one_wait() -> None:
    network = mask_rcnn.build(classes=3, channels=3, image_size=64, width=16, proposals=50).train()
    kinds = torch.tensor([[2, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 1]], dtype=torch.uint8)
    boxes = torch.tensor([4.0, 8, 40, 60]).repeat(4, 3, 1)
    masks = torch.ones(4, 3, 64, 64, dtype=torch.uint8)
    operations = Operations()
    operations.phase = "train"
    with Fetches(operations), operations:
        network(torch.zeros(4, 3, 64, 64), kinds.long(), boxes, kinds, masks)
    tally = operations.tallies["train"]
    assert [wait.partition(":")[0] for wait in tally.own_waits] == ["tolist kit/scenes_lightning.py"]
    assert tally.waits.total() > 20, "torchvision's own are seen too"

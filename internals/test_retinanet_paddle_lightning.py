"""RetinaNet in Paddle computes what torchvision's does, and reads its weights of COCO without PyTorch."""

import io
import pickle
from hashlib import sha256
from pathlib import Path

import numpy as np
import paddle
import pytest
import torch
from torchvision.models import detection
from torchvision.models.detection.image_list import ImageList

import src.kit.lightning as lightning_kit
import src.kit.paddle as paddle_kit
from exporting import liven
from src.kit.detection_dense_paddle import DenseDetector, suppress
from src.kit.errors import UserError
from src.kit.scenes_published_paddle import read_published
from src.kit.training.networks import build_model
from src.models.lightning.detection import retinanet as torchvisions
from src.models.lightning.detection import retinanet_coco as lightning_coco
from src.models.paddle.detection import retinanet as ours
from src.models.paddle.detection import retinanet_coco as paddle_coco
from test_retinanet_lightning import BOXES, KINDS, LABELS, published
from tests.support import model_config

OBJECTS = [each.numpy() for each in (LABELS, BOXES, KINDS)]


@pytest.fixture(scope="module")
def both():
    """The network in PyTorch and in Paddle, with the same weights."""
    torch.manual_seed(0)
    first, second = (module.build(classes=3, channels=3, image_size=64) for module in (torchvisions, ours))
    arrays = liven(lightning_kit.weights_to_numpy(first))
    assert list(paddle_kit.weights_to_numpy(second)) == list(arrays)
    lightning_kit.weights_from_numpy(first, arrays)
    paddle_kit.weights_from_numpy(second, arrays)
    return first, second


@pytest.mark.parametrize("size", [(64, 64), (96, 160)])
def test_logits_offsets_anchors_and_detections_are_torchvisions(both, size):
    first, second = (each.eval() or each for each in both)
    images = np.random.default_rng(1).standard_normal((2, 3, *size), dtype=np.float32)
    with torch.no_grad(), paddle.no_grad():
        maps = list(first.detector.backbone(torch.tensor(images)).values())
        expected = first.detector.head(maps)
        logits, offsets, anchors = second.detector(paddle.to_tensor(images))
        rows, others = first(torch.tensor(images)).numpy(), second(paddle.to_tensor(images)).numpy()
    generated = first.detector.anchor_generator(ImageList(torch.tensor(images), [size] * 2), maps)[0]
    np.testing.assert_array_equal(paddle.concat(anchors).numpy(), generated.numpy())
    assert logits.numpy().std() > 0.1
    np.testing.assert_allclose(logits.numpy(), expected["cls_logits"].numpy(), atol=1e-4)
    np.testing.assert_allclose(offsets.numpy(), expected["bbox_regression"].numpy(), atol=1e-4)
    assert (rows[..., 4] > 0).sum() > 20
    np.testing.assert_allclose(others, rows, atol=1e-3)


def test_losses_are_torchvisions_and_teach_every_parameter(both):
    first, second = (each.train() or each for each in both)
    images = np.random.default_rng(2).standard_normal((2, 3, 64, 64), dtype=np.float32)
    start = paddle_kit.weights_to_numpy(second)
    losses = second(paddle.to_tensor(images), *map(paddle.to_tensor, OBJECTS))
    expected = first(torch.tensor(images), *map(torch.tensor, OBJECTS)).detach().numpy()
    np.testing.assert_allclose(losses.numpy(), expected, rtol=1e-4)
    losses.sum().backward()
    trained = [(name, each) for name, each in second.named_parameters() if not each.stop_gradient]
    assert not [name for name, each in trained if each.grad is None or not each.grad.any()]
    labels, boxes, kinds = OBJECTS
    other = boxes.copy()
    other[0, 1], other[1, 0] = (1, 1, 9, 9), (5, 5, 60, 60)  # padding and a crowd
    again = second(paddle.to_tensor(images), *map(paddle.to_tensor, (labels, other, kinds)))
    np.testing.assert_allclose(again.numpy(), losses.numpy(), rtol=1e-5)
    nothing = second(paddle.to_tensor(images), *(paddle.to_tensor(each[:, :0]) for each in OBJECTS))
    assert nothing[0].item() > 0
    assert nothing[1].item() == 0
    nothing.sum().backward()
    paddle_kit.weights_from_numpy(second, start)


def test_an_image_without_a_sure_box_has_empty_rows():
    rows = paddle.to_tensor(np.float32([[0, 0, 9, 9, 0.05, 0], [1, 1, 5, 5, 0.01, 1]]))
    assert not suppress(rows, paddle.to_tensor([16.0] * 4), 5).numpy().any()


def test_it_learns_one_image_by_heart():
    paddle.seed(0)
    network = ours.build(classes=2, channels=3, image_size=64)
    network.detector = DenseDetector(18, 2, 3, width=64)
    images = np.random.default_rng(0).normal(0, 0.1, (1, 3, 64, 64)).astype(np.float32)
    boxes = np.float32([[[4, 4, 28, 36], [30, 20, 62, 52]]])
    for channel, (x1, y1, x2, y2) in zip((0, 2), boxes[0].astype(int), strict=True):
        images[0, channel, y1:y2, x1:x2] += 2
    for layer in network.sublayers():
        if isinstance(layer, paddle.nn.BatchNorm2D):
            layer._momentum = 0.5  # so that few steps are enough for its statistics
    optimizer = paddle.optimizer.AdamW(
        5e-4, parameters=network.parameters(), grad_clip=paddle.nn.ClipGradByGlobalNorm(1.0)
    )
    inputs = [paddle.to_tensor(each) for each in (images, np.int64([[0, 1]]), boxes, np.uint8([[1, 1]]))]
    for _ in range(60):
        network(*inputs).sum().backward()
        optimizer.step()
        optimizer.clear_grad()
    network.eval()
    with paddle.no_grad():
        rows = network(inputs[0]).numpy()[0]
    for kind, box in enumerate(boxes[0]):
        best = rows[rows[:, 5] == kind][0]
        assert best[4] > 0.3
        assert np.abs(best[:4] - box).max() < 6


def save_published(network: torch.nn.Module, folder: Path, old: bool) -> str:
    """Save weights as torchvision publishes them: names of then, and the digest in the file's; returns its name."""
    weights = network.state_dict()
    for name in list(weights):
        if ".fpn.inner_blocks" in name or ".fpn.layer_blocks" in name:
            weights[name.replace(".0.weight", ".weight").replace(".0.bias", ".bias")] = weights.pop(name)
        elif "_head.conv." in name:
            start, number, _, kind = name.rsplit(".", 3)
            weights[f"{start}.{2 * int(number)}.{kind}"] = weights.pop(name)
        elif "rpn.head.conv" in name:
            weights[name.replace("conv.0.0", "conv")] = weights.pop(name)
        elif "mask_head" in name:
            start, number, _, kind = name.rsplit(".", 3)
            weights[f"{start}.mask_fcn{int(number) + 1}.{kind}"] = weights.pop(name)
    content = io.BytesIO()
    torch.save(weights, content, _use_new_zipfile_serialization=not old)
    name = f"detector-{sha256(content.getvalue()).hexdigest()[:8]}.pth"
    (folder / name).write_bytes(content.getvalue())
    return name


def test_published_weights_of_coco_give_torchvisions_outputs_for_the_classes_it_knows(tmp_path, monkeypatch):
    theirs = published(detection.retinanet_resnet50_fpn)
    torch.nn.init.normal_(theirs.head.classification_head.cls_logits.weight, std=0.1)
    name = save_published(theirs, tmp_path, old=True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("DATASET_MIRROR", str(tmp_path))
    monkeypatch.setattr(paddle_coco, "WEIGHTS", f"https://download.pytorch.org/models/{name}")
    names = ["zebra", "mitosis", "person"]
    config = model_config("paddle", "retinanet_coco", pretrained=True, class_names=names)
    network = build_model(config, 3, 3, 64)
    network.eval()
    x = np.random.default_rng(0).standard_normal((1, 3, 64, 64), dtype=np.float32)
    with torch.no_grad(), paddle.no_grad():
        expected = theirs.head(list(theirs.backbone(torch.tensor(x)).values()))
        logits, offsets, _ = network.detector(paddle.to_tensor(x))
    np.testing.assert_allclose(offsets.numpy(), expected["bbox_regression"].numpy(), rtol=1e-3, atol=1e-4)
    numbers = [lightning_coco.WEIGHTS.meta["categories"].index(name) for name in ("zebra", "person")]
    shown = expected["cls_logits"][..., numbers].numpy()
    np.testing.assert_allclose(logits.numpy()[..., [0, 2]], shown, rtol=1e-3, atol=1e-4)
    assert logits.numpy()[..., 1].std() < shown.std() / 2, "what COCO does not know starts from nothing"


@pytest.mark.parametrize("old", [False, True], ids=["zip", "before 1.6"])
def test_files_of_pytorch_are_read_as_they_are(tmp_path, old):
    whole = torch.randn(4, 6)
    kept = {
        "whole": whole,
        "part": whole[2:],
        "half": whole.half(),
        "count": torch.tensor(7),
        "none": torch.zeros(0, 3),
    }
    torch.save({**kept, "epoch": 3}, tmp_path / "weights.pth", _use_new_zipfile_serialization=not old)
    found = read_published(tmp_path / "weights.pth")
    assert set(found) == set(kept)
    for name, value in kept.items():
        np.testing.assert_array_equal(found[name], value.numpy())
    torch.save({"turned": whole.T}, tmp_path / "turned.pth", _use_new_zipfile_serialization=not old)
    with pytest.raises(UserError, match="a tensor that is not contiguous"):
        read_published(tmp_path / "turned.pth")


class Harmful:
    def __reduce__(self):
        return Path.touch, (Path("harmed"),)


def test_what_a_file_asks_to_be_run_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for old in (False, True):
        torch.save({"weights": Harmful()}, "harmful.pth", _use_new_zipfile_serialization=not old)
        with pytest.raises(UserError, match=r"harmful\.pth holds no weights that PyTorch saved \("):
            read_published(Path("harmful.pth"))
    Path("plain.pth").write_bytes(pickle.dumps({"weights": [1.0]}))
    whole = io.BytesIO()
    torch.save({"weights": torch.zeros(99)}, whole, _use_new_zipfile_serialization=False)
    Path("cut.pth").write_bytes(whole.getvalue()[:-9])
    for name in ("plain.pth", "cut.pth"):
        with pytest.raises(UserError, match="download the file again"):
            read_published(Path(name))
    assert not Path("harmed").exists()

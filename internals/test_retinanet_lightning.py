"""torchvision's RetinaNet behind the interface of the task detection."""

import io
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torchvision.models import detection

from src.kit.scenes_lightning import find_anchors
from src.models.lightning.detection import retinanet_coco
from src.models.lightning.detection.retinanet import RetinaNet, build
from src.models.lightning.instance_segmentation import mask_rcnn_coco

BOXES = torch.tensor([[[4.0, 4, 40, 50], [0, 0, 0, 0]], [[0, 0, 64, 64], [30, 10, 60, 40]]])
LABELS = torch.tensor([[2, 0], [0, 1]])
KINDS = torch.tensor([[1, 0], [2, 1]], dtype=torch.uint8)


@pytest.fixture
def network() -> RetinaNet:
    torch.manual_seed(0)
    return build(classes=3, channels=3, image_size=64)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.tensor(np.random.default_rng(0).standard_normal((2, 3, 64, 64), dtype=np.float32))


def test_a_step_teaches_every_parameter(network, images):
    losses = network(images, LABELS, BOXES, KINDS)
    assert losses.shape == (2,)
    assert (losses > 0).all()
    losses.sum().backward()
    assert not [name for name, each in network.named_parameters() if each.grad is None or not each.grad.any()]


def test_padding_and_crowds_are_not_learned(network, images):
    alone = network(images, LABELS, BOXES, KINDS)
    other = BOXES.clone()
    other[0, 1], other[1, 0] = torch.tensor([1.0, 1, 9, 9]), torch.tensor([5.0, 5, 60, 60])
    torch.testing.assert_close(network(images, LABELS, other, KINDS), alone)
    nothing = network(images, LABELS[:, :0], BOXES[:, :0], KINDS[:, :0])
    assert torch.isfinite(nothing).all()
    assert nothing[1] == 0


def test_boxes_are_exact_in_half_precision():
    torch.manual_seed(0)
    network = build(classes=3, channels=3, image_size=512).eval()
    head = network.detector.head
    torch.nn.init.zeros_(head.regression_head.bbox_reg.weight)  # every box is its anchor then
    torch.nn.init.normal_(head.classification_head.cls_logits.weight, std=0.3)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        rows = network(torch.randn(1, 3, 512, 512))[0]
    found = rows[rows[:, 4] > 0, :4]
    assert len(found) > 100
    anchors, _ = find_anchors(network.detector.backbone, network.detector.anchor_generator, (3, 512, 512))
    distances = torch.cdist(found.float(), anchors.clamp(0, 512), p=torch.inf)
    assert distances.amin(dim=1).max() < 1e-3, "pixels; bfloat16 knows multiples of 2 from 256 on"


@pytest.mark.parametrize("channels", [1, 3])
def test_evaluation_gives_padded_rows_of_box_score_and_class(channels):
    torch.manual_seed(0)
    network = build(classes=3, channels=channels, image_size=64).eval()
    torch.nn.init.normal_(network.detector.head.classification_head.cls_logits.weight, std=0.3)
    with torch.no_grad():
        rows = network(torch.randn(2, channels, 64, 64))
    assert rows.shape == (2, 300, 6)
    for image in rows:
        found = image[image[:, 4] > 0]
        assert len(found) > 0
        assert (found[:, 2:4] >= found[:, :2]).all()
        assert set(found[:, 5].tolist()) <= {0.0, 1.0, 2.0}
        assert not image[len(found) :].any()


def serve_published(entry, network: torch.nn.Module, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a network's weights into a mirror, as those of an entry, with the digest that their name needs."""
    content = io.BytesIO()
    torch.save(network.state_dict(), content)
    name = f"detector-{sha256(content.getvalue()).hexdigest()[:8]}.pth"
    (folder / name).write_bytes(content.getvalue())
    monkeypatch.setenv("TORCH_HOME", str(folder / "cache"))
    monkeypatch.setenv("DATASET_MIRROR", str(folder))
    monkeypatch.setattr(entry.value, "url", f"https://download.pytorch.org/models/{name}")


def published(make) -> torch.nn.Module:
    """torchvision's own detector of 91 classes with random weights, without epsilon as those of COCO."""
    torch.manual_seed(1)
    network = make(weights=None, weights_backbone=None, num_classes=91).eval()
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.eps = 0.0
            layer.running_mean.normal_(std=0.1)
            layer.running_var.uniform_(0.5, 2)
    return network


def test_weights_of_coco_give_torchvisions_outputs_for_the_classes_it_knows(tmp_path, monkeypatch):
    theirs = published(detection.retinanet_resnet50_fpn)
    torch.nn.init.normal_(theirs.head.classification_head.cls_logits.weight, std=0.1)
    serve_published(retinanet_coco.WEIGHTS, theirs, tmp_path, monkeypatch)
    names = ["zebra", "mitosis", "person"]
    ours = retinanet_coco.build(classes=3, channels=3, image_size=64, pretrained=True, class_names=names).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected, found = (each.head(list(each.backbone(x).values())) for each in (theirs, ours.detector))
    torch.testing.assert_close(found["bbox_regression"], expected["bbox_regression"], rtol=1e-3, atol=1e-4)
    numbers = [retinanet_coco.WEIGHTS.meta["categories"].index(name) for name in ("zebra", "person")]
    shown = expected["cls_logits"][..., numbers]
    torch.testing.assert_close(found["cls_logits"][..., [0, 2]], shown, rtol=1e-3, atol=1e-4)
    assert found["cls_logits"][..., 1].std() < shown.std() / 2, "what COCO does not know starts from nothing"
    grey = retinanet_coco.build(classes=3, channels=1, image_size=64, pretrained=True, class_names=names)
    assert grey(x[:, :1], LABELS[:1], BOXES[:1], KINDS[:1]).isfinite().all()


def test_weights_of_coco_of_mask_rcnn(tmp_path, monkeypatch):
    theirs = published(detection.maskrcnn_resnet50_fpn)
    old = theirs.state_dict()  # in the names of the file that torchvision publishes
    for n in range(4):
        for kind in ("weight", "bias"):
            old[f"roi_heads.mask_head.mask_fcn{n + 1}.{kind}"] = old.pop(f"roi_heads.mask_head.{n}.0.{kind}")
    for kind in ("weight", "bias"):
        old[f"rpn.head.conv.{kind}"] = old.pop(f"rpn.head.conv.0.0.{kind}")
    plain = SimpleNamespace(state_dict=lambda: dict(old))
    serve_published(mask_rcnn_coco.WEIGHTS, plain, tmp_path, monkeypatch)
    names = ["mitosis", "cat"]
    ours = mask_rcnn_coco.build(classes=2, channels=3, image_size=128, pretrained=True, class_names=names).eval()
    x, regions = torch.randn(1, 3, 64, 64), torch.randn(2, 256, 7, 7)
    cat = mask_rcnn_coco.WEIGHTS.meta["categories"].index("cat")
    with torch.no_grad():
        one, other = (list(each.backbone(x).values()) for each in (theirs, ours.detector))
        for a, b in zip(theirs.rpn.head(one), ours.detector.rpn.head(other), strict=True):
            torch.testing.assert_close(b, a, rtol=1e-3, atol=1e-4)
        (logits, boxes), (own, shifts) = (
            each.roi_heads.box_predictor(each.roi_heads.box_head(regions)) for each in (theirs, ours.detector)
        )
        masks, drawn = (
            each.roi_heads.mask_predictor(each.roi_heads.mask_head(regions)) for each in (theirs, ours.detector)
        )
    torch.testing.assert_close(own[:, [0, 2]], logits[:, [0, cat]])
    torch.testing.assert_close(shifts[:, 8:], boxes[:, 4 * cat : 4 * cat + 4])
    torch.testing.assert_close(drawn[:, 2], masks[:, cat])

"""Mask R-CNN, which each framework builds from its own parts, starts alike in both."""

import json

import numpy as np
import paddle
import pytest
import torch
from torchvision.models.detection import maskrcnn_resnet50_fpn

import src.kit.paddle as paddle_kit
from exporting import liven
from mask_rcnn import BATCHES, SIDE
from src.kit.errors import UserError
from src.kit.instance_segmentation_paddle import to_own_names, to_torchvision
from src.kit.lightning import weights_from_numpy, weights_to_numpy
from src.kit.training.networks import build_model
from src.kit.weights import save_weights
from src.models.lightning.instance_segmentation import mask_rcnn as lightning
from src.models.lightning.instance_segmentation import mask_rcnn_coco as lightning_coco
from src.models.paddle.instance_segmentation import mask_rcnn as theirs
from src.models.paddle.instance_segmentation import mask_rcnn_coco as paddle_coco
from test_retinanet_lightning import published
from test_retinanet_paddle_lightning import save_published
from tests.support import model_config


def test_first_losses_are_alike():
    arguments = {"classes": 10, "channels": 3, "image_size": SIDE, "width": 64, "proposals": 64}
    images = np.random.default_rng(0).standard_normal((2, 3, SIDE, SIDE), dtype=np.float32)
    torch.manual_seed(0)
    first = lightning.build(**arguments).train()
    losses = first(torch.tensor(images), *map(torch.tensor, BATCHES["objects"])).detach().numpy()
    paddle.seed(0)
    second = theirs.build(**arguments)
    second.train()
    others = second(paddle.to_tensor(images), *map(paddle.to_tensor, BATCHES["objects"])).numpy()
    # offset and class losses of the second stage, whose first values its random weights decide
    np.testing.assert_allclose(others[[3, 2]], losses[:2], atol=0.4)
    spread = [float(each.std()) for each in first.detector.backbone(torch.tensor(images)).values()]
    np.testing.assert_allclose(
        [float(each.std()) for each in second.pyramid(paddle.to_tensor(images))], spread, rtol=0.3
    )


def test_published_weights_of_coco_are_taken_for_the_classes_it_knows(tmp_path, monkeypatch):
    name = save_published(published(maskrcnn_resnet50_fpn), tmp_path, old=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("DATASET_MIRROR", str(tmp_path))
    monkeypatch.setattr(paddle_coco, "WEIGHTS", f"https://download.pytorch.org/models/{name}")
    names = ["mitosis", "cat"]
    network = build_model(model_config("paddle", "mask_rcnn_coco", pretrained=True, class_names=names), 2, 3, SIDE)
    found, stored = to_torchvision(paddle_kit.weights_to_numpy(network)), torch.load(tmp_path / name, weights_only=True)
    cat = lightning_coco.WEIGHTS.meta["categories"].index("cat")
    for layer, rows in (
        ("box_predictor.cls_score", 1),
        ("box_predictor.bbox_pred", 4),
        ("mask_predictor.mask_fcn_logits", 1),
    ):
        for kind in ("weight", "bias"):
            own, theirs = found[f"roi_heads.{layer}.{kind}"], stored[f"roi_heads.{layer}.{kind}"].numpy()
            np.testing.assert_array_equal(own[2 * rows : 3 * rows], theirs[cat * rows :][:rows])
            assert kind == "bias" or not np.array_equal(own[rows : 2 * rows], theirs[rows : 2 * rows])
    np.testing.assert_array_equal(
        found["roi_heads.box_predictor.cls_score.bias"][0], stored["roi_heads.box_predictor.cls_score.bias"][0]
    )
    for own, theirs in (
        ("rpn.head.conv.0.0", "rpn.head.conv"),
        ("roi_heads.mask_head.3.0", "roi_heads.mask_head.mask_fcn4"),
    ):
        np.testing.assert_array_equal(found[f"{own}.weight"], stored[f"{theirs}.weight"])


def test_detections_with_the_same_weights_and_anchors_are_torchvisions():
    reference = lightning.build(classes=3, channels=3, image_size=SIDE, width=64, proposals=64).eval()
    network = theirs.MaskRCNN(18, 3, 3, SIDE, width=64, proposals=64, rounded=True)
    network.eval()
    arrays = liven(to_torchvision(paddle_kit.weights_to_numpy(network)))
    assert to_own_names(arrays).keys() == paddle_kit.weights_to_numpy(network).keys()
    weights_from_numpy(reference.detector, arrays)
    paddle_kit.weights_from_numpy(network, to_own_names(arrays))
    # the two choose proposals by other numbers in evaluation
    reference.detector.rpn._pre_nms_top_n["testing"], reference.detector.rpn.min_size = 128, 1.0
    images = np.random.default_rng(1).standard_normal((2, 3, 96, 96), dtype=np.float32)
    with torch.no_grad(), paddle.no_grad():
        expected, found = reference(torch.tensor(images)).numpy(), network(paddle.to_tensor(images)).numpy()
    assert (expected[..., 4] > 0).sum() > 20
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_weights_of_the_other_framework_are_refused(tmp_path):
    network = lightning.build(classes=10, channels=3, image_size=SIDE, width=16)
    file = tmp_path / "model.safetensors"
    save_weights(file, weights_to_numpy(network), {"classes": json.dumps([str(number) for number in range(10)])})
    with pytest.raises(UserError, match=r"another model.*and the framework that the file was trained with"):
        build_model(model_config("paddle", "mask_rcnn_resnet18", width=16, weights=str(file)), 2, 3, SIDE)

"""Mask R-CNN, which each framework builds from its own parts, starts alike in both."""

import json

import numpy as np
import paddle
import pytest
import torch

from mask_rcnn import BATCHES, SIDE
from src.kit.errors import UserError
from src.kit.lightning import weights_to_numpy
from src.kit.training.networks import build_model
from src.kit.weights import save_weights
from src.models.lightning.instance_segmentation import mask_rcnn as lightning
from src.models.paddle.instance_segmentation import mask_rcnn as theirs
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


def test_weights_of_the_other_framework_are_refused(tmp_path):
    network = lightning.build(classes=10, channels=3, image_size=SIDE, width=16)
    file = tmp_path / "model.safetensors"
    save_weights(file, weights_to_numpy(network), {"classes": json.dumps([str(number) for number in range(10)])})
    with pytest.raises(UserError, match=r"another model.*and the framework that the file was trained with"):
        build_model(model_config("paddle", "mask_rcnn_resnet18", width=16, weights=str(file)), 2, 3, SIDE)

"""DeepLabV3+ in PyTorch: sizes, and what its dilation is for."""

import copy

import pytest
import torch
from torchvision import models

from src.models.lightning.segmentation import deeplab


@pytest.mark.parametrize("size", [(64, 64), (33, 70)])
def test_a_logit_for_every_pixel_of_images_of_any_size(size):
    network = deeplab.build(classes=5, channels=3, image_size=64, backbone="mobilenet_v2", width=16).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 3, *size)).shape == (1, 5, *size)


def test_every_parameter_learns():
    network = deeplab.build(classes=2, channels=3, image_size=64, width=16).train()
    network(torch.randn(2, 3, 64, 64)).square().sum().backward()
    assert not [name for name, each in network.named_parameters() if each.grad is None or not each.grad.any()]


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenet_v2"])
def test_dilation_gives_the_features_of_the_stride_and_those_between(name):
    network = getattr(models, name)(weights=None).eval()
    strided = network.features[14:18] if name == "mobilenet_v2" else network.layer4
    dilated = copy.deepcopy(strided)
    for layer in dilated if name == "mobilenet_v2" else [dilated]:
        deeplab.dilate(layer)
    x = torch.randn(1, {"resnet18": 256, "resnet50": 1024, "mobilenet_v2": 96}[name], 16, 16)
    with torch.no_grad():
        few, many = strided(x), dilated(x)
    assert few.shape[2:] == (8, 8)
    assert many.shape[2:] == (16, 16)
    torch.testing.assert_close(many[:, :, ::2, ::2], few, atol=1e-5, rtol=1e-4)

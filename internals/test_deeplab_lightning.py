"""DeepLabV3+ in PyTorch: sizes, and what its dilation is for."""

import copy

import pytest
import torch
from torch.nn import functional
from torchvision import models

from src.kit.scenes_lightning import resize_by_products
from src.models.lightning.segmentation import deeplab


@pytest.mark.parametrize("size", [(64, 64), (33, 70)])
def test_a_logit_for_every_pixel_of_images_of_any_size(size):
    network = deeplab.build(classes=5, channels=3, image_size=64, backbone="mobilenet_v2", width=16).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 3, *size)).shape == (1, 5, *size)


@pytest.mark.parametrize("size", [(32, 32), (21, 17), (8, 9), (4, 3), (1, 1)])
def test_two_products_resize_as_interpolation_does_and_so_do_their_gradients(size):
    x, weights = torch.randn(2, 3, 8, 9, requires_grad=True), torch.randn(2, 3, *size)
    expected = functional.interpolate(x, size, mode="bilinear", align_corners=False)
    found = resize_by_products(x, size)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    pairs = [torch.autograd.grad((each * weights).sum(), x)[0] for each in (found, expected)]
    torch.testing.assert_close(*pairs, atol=1e-4, rtol=1e-4)


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

"""Mask R-CNN in PyTorch."""

import torch

from mask_rcnn import SIDE, MaskRCNNTests
from src.models.lightning.instance_segmentation import mask_rcnn


class TestMaskRCNNLightning(MaskRCNNTests):
    def build(self, classes=2, channels=3, size=SIDE):
        torch.manual_seed(0)
        return mask_rcnn.build(classes=classes, channels=channels, image_size=size, width=8, proposals=32)

    def step(self, network, images, arrays):
        torch.manual_seed(0)
        network.zero_grad()
        losses = network.train()(torch.tensor(images), *map(torch.tensor, arrays))
        losses.sum().backward()
        slopes = {name: None if p.grad is None else p.grad.abs().max().item() for name, p in network.named_parameters()}
        return losses.detach().numpy(), slopes

    def predict(self, network, images):
        with torch.no_grad():
            return network.eval()(torch.tensor(images)).numpy()

    def overfit(self, images, truth):
        torch.manual_seed(0)
        network = mask_rcnn.build(classes=2, channels=3, image_size=SIDE, width=16, proposals=32).train()
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 0.5  # so that few steps are enough for its statistics
        optimizer = torch.optim.AdamW(network.parameters(), 2e-3)
        inputs = [torch.tensor(array) for array in (images, *truth)]
        for _ in range(40):
            optimizer.zero_grad()
            network(*inputs).sum().backward()
            optimizer.step()
        return self.predict(network, images)

"""Mask R-CNN in PyTorch."""

import torch
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import poolers

from mask_rcnn import SIDE, MaskRCNNTests
from src.kit.scenes_lightning import find_anchors, unpad
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

    def test_boxes_are_exact_in_half_precision(self):
        detector = self.build(size=512).detector.eval()
        torch.nn.init.zeros_(detector.rpn.head.bbox_pred.weight)  # every proposal is its anchor then
        images = ImageList(torch.randn(1, 3, 512, 512), [(512, 512)])
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            (proposals,), _ = detector.rpn(images, detector.backbone(images.tensors))
            pooled = torch.randn(4, 8, 14, 14, dtype=torch.bfloat16)
            outputs = [*detector.roi_heads.box_predictor(torch.randn(4, 32)), detector.roi_heads.mask_predictor(pooled)]
        anchors, _ = find_anchors(detector.backbone, detector.rpn.anchor_generator, (3, 512, 512))
        distances = torch.cdist(proposals.float(), anchors.clamp(0, 512), p=torch.inf)
        assert distances.amin(dim=1).max() < 1e-3, "pixels; bfloat16 knows multiples of 2 from 256 on"
        assert {each.dtype for each in outputs} == {torch.float32}


def test_each_image_s_objects_are_told_from_crowds_and_padding():
    kinds = torch.tensor([[1, 2, 1, 0], [0, 0, 0, 0], [2, 1, 0, 0]], dtype=torch.uint8)
    labels, boxes = torch.arange(12).reshape(3, 4), torch.rand(3, 4, 4)
    images = unpad(kinds, labels=labels, boxes=boxes)
    assert [image["labels"].tolist() for image in images] == [[0, 2], [], [9]]
    for image, own, alone in zip(images, boxes, kinds == 1, strict=True):
        assert torch.equal(image["boxes"], own[alone])


def test_regions_are_pooled_by_torchvision_s_kernel_whatever_deterministic_is(monkeypatch):
    pool, seen = poolers.roi_align, []

    def spy(*arguments, **options):
        seen.append(torch.get_deterministic_debug_mode())
        return pool(*arguments, **options)

    monkeypatch.setattr(poolers, "roi_align", spy)
    torch.set_deterministic_debug_mode("warn")
    try:
        TestMaskRCNNLightning().build().eval()(torch.zeros(1, 3, SIDE, SIDE))
        assert torch.get_deterministic_debug_mode() == 1, "what follows is as it was"
    finally:
        torch.set_deterministic_debug_mode("default")
    assert set(seen) == {0}

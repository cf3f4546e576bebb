"""Fine-tuning to other classes in Lightning."""

import pytest
import torch

from fine_tuning import FineTuningTests


class TestFineTuningLightning(FineTuningTests):
    framework = "lightning"
    backbones = ("deeplab_resnet18", "mask_rcnn_resnet18", "retinanet_resnet18")
    mask_rcnn = frozenset(
        {
            "detector.roi_heads.box_predictor.cls_score",
            "detector.roi_heads.box_predictor.bbox_pred",
            "detector.roi_heads.mask_predictor.mask_fcn_logits",
        }
    )

    def seed(self) -> None:
        torch.manual_seed(0)

    @pytest.mark.parametrize("counts", [(10, 2), (2, 10)])
    def test_a_librarys_model_too(self, tmp_path, said, counts):
        layers = {"detector.head.classification_head.cls_logits"}
        self.expect(tmp_path, said, "retinanet_resnet18", counts, {}, layers)

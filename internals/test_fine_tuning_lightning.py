"""Fine-tuning to other classes in Lightning."""

import torch

from fine_tuning import FineTuningTests


class TestFineTuningLightning(FineTuningTests):
    framework = "lightning"
    mask_rcnn = frozenset(
        {
            "detector.roi_heads.box_predictor.cls_score",
            "detector.roi_heads.box_predictor.bbox_pred",
            "detector.roi_heads.mask_predictor.mask_fcn_logits",
        }
    )

    def seed(self) -> None:
        torch.manual_seed(0)

"""Exports of both frameworks with the same weights compute the same."""

import numpy as np
import pytest

import src.kit.lightning as lightning_kit
import src.kit.paddle as paddle_kit
from exporting import Exported, agree, build, inputs, liven


@pytest.mark.parametrize("name", ["tabular_mlp", "deeplab_mobilenet_v2"])
def test_both_frameworks_export_the_same_function(name, tmp_path):
    ours, theirs = build("lightning", name), build("paddle", name)
    arrays = liven(lightning_kit.weights_to_numpy(ours))
    lightning_kit.weights_from_numpy(ours, arrays)
    paddle_kit.weights_from_numpy(theirs, arrays)
    one = Exported("lightning", ours, name, tmp_path / "lightning")
    other = Exported("paddle", theirs, name, tmp_path / "paddle")
    images = inputs(name, 2)
    agree(one(images), other(images), name)
    assert not np.allclose(one(images)[0], one(images)[1])

"""Both frameworks count the same operations of the same network."""

import pytest

from benchmarking import BenchmarkTests


def count(framework: str, model: str) -> int:
    counter = BenchmarkTests()
    counter.framework = framework
    return counter.flops(model, 64)


@pytest.mark.parametrize("model", ["small_cnn", "resnet18", "resnet50", "efficientnet", "resnet18_attention"])
def test_the_same_operations(model):
    assert count("paddle", model) == pytest.approx(count("lightning", model), rel=0.02)

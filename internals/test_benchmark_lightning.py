"""The performance benchmark in PyTorch Lightning, run for a moment."""

from benchmarking import BenchmarkTests


class TestLightning(BenchmarkTests):
    framework = "lightning"

"""The loading benchmark in Lightning."""

from benchmarking import LoadingBenchmarkTests


class TestBenchmarkDataLightning(LoadingBenchmarkTests):
    framework = "lightning"

"""The loading benchmark in Paddle."""

from benchmarking import LoadingBenchmarkTests


class TestBenchmarkDataPaddle(LoadingBenchmarkTests):
    framework = "paddle"

"""The performance benchmark in Paddle, run for a moment."""

from benchmarking import BenchmarkTests


class TestPaddle(BenchmarkTests):
    framework = "paddle"

"""The performance benchmark in Paddle, run for a moment."""

from tests.internals.benchmarking import BenchmarkTests


class TestPaddle(BenchmarkTests):
    framework = "paddle"

"""Skewed digits in Paddle: every method against imbalance raises the macro-F1."""

from tests.internals.imbalance import ImbalanceTests


class TestImbalancePaddle(ImbalanceTests):
    framework = "paddle"

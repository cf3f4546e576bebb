"""Skewed digits in Paddle: every method against imbalance raises the macro-F1."""

from imbalance import ImbalanceTests


class TestImbalancePaddle(ImbalanceTests):
    framework = "paddle"

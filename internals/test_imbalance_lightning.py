"""Skewed digits in Lightning: every method against imbalance raises the macro-F1."""

from imbalance import ImbalanceTests


class TestImbalanceLightning(ImbalanceTests):
    framework = "lightning"

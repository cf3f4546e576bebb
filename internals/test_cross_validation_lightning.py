"""Cross-validation and saved splits in Lightning."""

from cross_validation import CrossValidationTests


class TestCrossValidationLightning(CrossValidationTests):
    framework = "lightning"

"""Cross-validation and saved splits in Lightning."""

from tests.internals.cross_validation import CrossValidationTests


class TestCrossValidationLightning(CrossValidationTests):
    framework = "lightning"

"""Cross-validation and saved splits in Paddle."""

from tests.internals.cross_validation import CrossValidationTests


class TestCrossValidationPaddle(CrossValidationTests):
    framework = "paddle"

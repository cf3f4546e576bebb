"""Cross-validation and saved splits in Paddle."""

from cross_validation import CrossValidationTests


class TestCrossValidationPaddle(CrossValidationTests):
    framework = "paddle"

"""Runs that go on within an epoch, in Paddle."""

from resuming import ResumeTests


class TestResumePaddle(ResumeTests):
    framework = "paddle"

"""Runs that go on within an epoch, in Paddle."""

from tests.internals.resuming import ResumeTests


class TestResumePaddle(ResumeTests):
    framework = "paddle"

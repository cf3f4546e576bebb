"""Runs that go on within an epoch, in Lightning."""

from tests.internals.resuming import ResumeTests


class TestResumeLightning(ResumeTests):
    framework = "lightning"

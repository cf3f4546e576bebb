"""Runs that go on within an epoch, in Lightning."""

from resuming import ResumeTests


class TestResumeLightning(ResumeTests):
    framework = "lightning"

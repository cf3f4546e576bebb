"""Runs that go on within an epoch or after damage, in Lightning."""

from damaging import DamageTests
from resuming import ResumeTests


class TestResumeLightning(ResumeTests):
    framework = "lightning"


class TestDamageLightning(DamageTests):
    framework = "lightning"

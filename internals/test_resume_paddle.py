"""Runs that go on within an epoch or after damage, in Paddle."""

from damaging import DamageTests
from resuming import ResumeTests


class TestResumePaddle(ResumeTests):
    framework = "paddle"


class TestDamagePaddle(DamageTests):
    framework = "paddle"

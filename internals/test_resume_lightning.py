"""Runs that go on within an epoch or after damage, in Lightning."""

from pathlib import Path

from damaging import DamageTests
from resuming import ResumeTests


class TestResumeLightning(ResumeTests):
    framework = "lightning"
    script = str(Path(__file__).with_name("watched_lightning.py"))


class TestDamageLightning(DamageTests):
    framework = "lightning"

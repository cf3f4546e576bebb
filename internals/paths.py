"""The project under test."""

from pathlib import Path

TEMPLATE = Path(__file__).resolve().parents[1] / "template"

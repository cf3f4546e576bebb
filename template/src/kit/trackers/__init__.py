"""Where metrics go besides the run folder."""

from src.kit.trackers.base import Tracker, open_tracker

__all__ = ["Tracker", "open_tracker"]

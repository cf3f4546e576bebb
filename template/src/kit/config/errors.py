"""The old place of `src.kit.errors`, for what still imports it."""

from src.kit.errors import UserError, run_main

__all__ = ["UserError", "run_main"]

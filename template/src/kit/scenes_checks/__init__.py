"""Checks of boxes, outlines and class maps."""

"""The losses in PyTorch: `build_loss(cfg)` of each task's file."""

LOSSES = {"cross_entropy": "src.tasks.lightning.classification:build_loss"}

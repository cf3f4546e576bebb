"""The losses in Paddle: `build_loss(cfg)` of each task's file."""

LOSSES = {"cross_entropy": "src.tasks.paddle.classification:build_loss"}

"""The losses in Paddle: `build_loss(cfg, class_counts)` of each file."""

LOSSES = {
    "cross_entropy": "src.tasks.paddle.classification:build_loss",
    "focal": "src.tasks.paddle.classification:build_loss",
    "boxes": "src.tasks.paddle.detection:build_loss",
    "pixels": "src.tasks.paddle.segmentation:build_loss",
    "network": "src.tasks.network:build_loss",
    "mse": "src.tasks.paddle.tabular_regression:build_loss",
}

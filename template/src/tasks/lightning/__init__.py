"""The losses in PyTorch: `build_loss(cfg, class_counts)` of each file."""

LOSSES = {
    "cross_entropy": "src.tasks.lightning.classification:build_loss",
    "focal": "src.tasks.lightning.classification:build_loss",
    "boxes": "src.tasks.lightning.detection:build_loss",
    "pixels": "src.tasks.lightning.segmentation:build_loss",
    "network": "src.tasks.network:build_loss",
    "mse": "src.tasks.lightning.tabular_regression:build_loss",
}

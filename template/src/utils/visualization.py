"""Draw curves, confusion matrices, images with predictions, and networks, in the style of `report.html`.

Every function writes a PNG and returns its path (`draw_curves`: the list of its paths).

    from pathlib import Path
    from src.utils.visualization import draw_confusion
    draw_confusion(np.array([[9, 1], [2, 8]]), ["cat", "dog"], Path("confusion.png"))
"""

from src.kit.report import draw_confusion, draw_curves, draw_grid, draw_images, draw_model_graph, draw_predictions

__all__ = [
    "draw_confusion",
    "draw_curves",
    "draw_grid",
    "draw_images",
    "draw_model_graph",
    "draw_predictions",
]

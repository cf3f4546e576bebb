"""Gradient-boosted trees, in no framework: often the best model of a table."""

from collections.abc import Sequence
from typing import Annotated

from src.kit.config import Range
from src.kit.tabular_trees import Trees

ENGINE = "tabular_trees"  # of src/kit: what trains and runs this model, in place of a framework


def build(
    *,
    classes: int,
    channels: int,
    image_size: int,
    cardinalities: Sequence[int],
    knots: Sequence[Sequence[float]],
    iterations: Annotated[int, Range(min=1)] = 300,
    shrinkage: Annotated[float, Range(above=0, max=1)] = 0.1,
    leaves: Annotated[int, Range(min=2)] = 31,
    min_leaf: Annotated[int, Range(min=1)] = 20,
    l2: Annotated[float, Range(min=0)] = 0.0,
) -> Trees:
    """Histogram-based boosting (Ke et al. 2017, LightGBM), as in scikit-learn: float32 (B, F) -> logits (B, K).

    Args:
        iterations: Most trees for each class; the number with the best validation loss is kept.
        shrinkage: Share of each tree's answer that is added, known as the learning rate.
        leaves: Most leaves of a tree.
        min_leaf: Fewest training rows in a leaf.
        l2: Penalty on the leaves' values.
    """
    assert image_size == 1, "a row is like an image of one pixel"
    return Trees(
        classes,
        {
            "max_iter": iterations,
            "learning_rate": shrinkage,
            "max_leaf_nodes": leaves,
            "min_samples_leaf": min_leaf,
            "l2_regularization": l2,
        },
    )

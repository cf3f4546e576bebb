"""Classification of a table's rows, whatever the framework: scores and pictures from NumPy logits."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from src.kit.config import UserError
from src.kit.inference import softmax
from src.kit.loading import Loader
from src.kit.tabular import TableSplit, build_table_loader, score_probabilities
from src.tasks import classification


class Task(classification.Task):
    """One class for each row; `dataset` is a `TableSplit`."""

    content = TableSplit.content

    def input_shape(self, cfg: DictConfig, dataset: Any) -> tuple[int, int, int]:
        """(1, 1, F): a row is like an image of one pixel with F channels."""
        shape: tuple[int, int, int] = dataset.images.shape
        return shape

    def network_arguments(self, dataset: Any) -> dict[str, Any]:
        fitted = dataset.preprocessing
        return {"cardinalities": fitted.cardinalities, "knots": fitted.knots}

    def metadata(self, dataset: Any) -> dict[str, str]:
        """The fitted preprocessing, so that new rows are encoded as the training rows were."""
        return {"preprocessing": dataset.preprocessing.to_json()}

    def describe(self, cfg: DictConfig, dataset: Any) -> dict[str, Any]:
        fitted = dataset.preprocessing
        reading: Any = OmegaConf.to_object(cfg.data.columns)
        inputs = {"shape": [len(fitted.names)], "columns": fitted.to_json()}
        inputs |= {key: reading[key] for key in ("delimiter", "categories")}
        return {"kind": "tabular", "input": inputs, "output": {"kind": "classes"}}

    def build_loader(self, cfg: DictConfig, dataset: Any, kind: str, rank: int = 0, world_size: int = 1) -> Loader:
        return build_table_loader(cfg, dataset, kind, rank, world_size)

    def evaluate(self, collected: classification.Collected, names: Sequence[str]) -> dict[str, Any]:
        """The evaluation of images, and scores of the probabilities, see `kit.tabular.score_probabilities`."""
        outputs, targets = classification.concatenate(collected)
        return {**super().evaluate(collected, names), **score_probabilities(softmax(outputs), targets)}

    def examine(self, experiment: Any, split: str, predict: Callable[[np.ndarray], np.ndarray]) -> dict[str, Any]:
        """What each column contributes; and trees, which are hard to beat, where there are rows to grow them on."""
        from src.kit.tabular_trees import compare, permutation_importance

        found: dict[str, Any] = {"importance": permutation_importance(experiment, split, predict)}
        if experiment.cfg.model.name != "trees" and experiment.cfg.data[f"{split}_fraction"] != 1:
            found["beside"] = {"gradient-boosted trees": compare(experiment, split)}
        return found

    def draw_samples(self, dataset: Any, chosen: np.ndarray, cfg: DictConfig, path: Path) -> Path:
        """Draw rows as the network sees them."""
        from src.kit.tabular import draw_rows

        names = [dataset.classes[target] if dataset.classes else f"{target:.4g}" for target in dataset.targets[chosen]]
        return draw_rows(dataset.images.get(chosen)[:, 0, 0], dataset.preprocessing.names, names, path)

    def draw_batch(self, cfg: DictConfig, dataset: Any, split: str, path: Path, count: int) -> Path:
        raise UserError(
            f"data={cfg.data.name} holds {dataset.content} and no images: look at it with "
            f"`python scripts/validate_data.py data={cfg.data.name}`."
        )

    def draw_predictions(
        self, collected: classification.Collected, dataset: Any, cfg: DictConfig, folder: Path, prefix: str
    ) -> list[Path]:
        """Write the confusion matrix as `folder/prefix-confusion.png`."""
        from src.kit.report import draw_confusion

        outputs, targets = classification.concatenate(collected)
        matrix = classification.count_pairs(targets, outputs.argmax(axis=1), len(dataset.classes))
        return [draw_confusion(matrix, dataset.classes, folder / f"{prefix}-confusion.png")]

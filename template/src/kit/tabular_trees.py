"""Gradient-boosted trees as a model of the same interface, and as the baseline beside every other model of a table.

scikit-learn grows the trees; they are kept as plain arrays in model.safetensors, so that nothing is unpickled. The
module is both trainer (`fit`) and backend (`load_network`, `predict`, ...) of a model whose file says
`ENGINE = "tabular_trees"`.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from src.kit.config import UserError
from src.kit.run import Run
from src.kit.training import Checkpoints, Experiment, weigh_classes
from src.kit.weights import load_weights, save_weights

__all__ = [
    "Trees",
    "compare",
    "fit",
    "list_layers",
    "load_network",
    "permutation_importance",
    "predict",
    "predict_images",
]

ROWS = 20  # of metrics.csv: one for each twentieth of the trees
MOST_ROWS = 200_000  # random training rows for the trees that other models are compared with
SCORED = 20_000  # random rows by which the number of rounds is chosen
SHUFFLED = 2000  # rows by which columns are judged
CHUNK = 4096  # rows predicted at once
NODES = ("feature", "threshold", "left", "right", "value")


class Trees:
    """Trees in arrays: float32 (N, F) -> float64 (N, K) logits, or the standardised number (N, 1).

    `nodes` are the columns of `NODES`, of all trees one after the other: `left` and `right` are the nodes that follow,
    a leaf's own number at leaves. `roots` (T, R) are the roots of each round's trees, one of them for two classes or a
    number, and `base` (R,) is what is added to their sum.
    """

    def __init__(self, outputs: int, keys: Mapping[str, Any]) -> None:
        """`keys` are those of scikit-learn's HistGradientBoosting."""
        self.outputs, self.keys = outputs, dict(keys)
        self.nodes: dict[str, np.ndarray] = {}
        self.roots, self.base = np.zeros((0, 1), np.int64), np.zeros(1)

    def grow(self, inputs: np.ndarray, targets: np.ndarray, weights: np.ndarray | None, seed: int) -> None:
        """Grow all trees: `targets` are int64 (N,) classes, or float64 (N,) standardised numbers."""
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        kind = HistGradientBoostingClassifier if targets.dtype == np.int64 else HistGradientBoostingRegressor
        model = kind(**self.keys, early_stopping=False, random_state=seed).fit(inputs, targets, sample_weight=weights)
        parts: dict[str, list[np.ndarray]] = {name: [] for name in NODES}
        roots: list[list[int]] = []
        first = 0
        for stage in model._predictors:
            roots.append([])
            for tree in stage:
                nodes, own = tree.nodes, np.arange(len(tree.nodes))
                leaf = nodes["is_leaf"].astype(bool)
                parts["feature"].append(np.where(leaf, 0, nodes["feature_idx"]).astype(np.int32))
                parts["threshold"].append(nodes["num_threshold"])
                parts["left"].append(first + np.where(leaf, own, nodes["left"]))
                parts["right"].append(first + np.where(leaf, own, nodes["right"]))
                parts["value"].append(nodes["value"])
                roots[-1].append(first)
                first += len(nodes)
        self.nodes = {name: np.concatenate(arrays) for name, arrays in parts.items()}
        self.roots, self.base = np.array(roots, np.int64), np.ravel(model._baseline_prediction).astype(np.float64)

    def answers(self, inputs: np.ndarray, roots: np.ndarray) -> np.ndarray:
        """What the trees with these roots answer, float64 (N, len(roots))."""
        at = np.broadcast_to(roots, (len(inputs), len(roots)))
        while True:
            below = np.take_along_axis(inputs, self.nodes["feature"][at], axis=1) <= self.nodes["threshold"][at]
            following = np.where(below, self.nodes["left"][at], self.nodes["right"][at])
            if (following == at).all():
                answers: np.ndarray = self.nodes["value"][at]
                return answers
            at = following

    def staged(self, inputs: np.ndarray) -> Iterator[np.ndarray]:
        """Outputs (N, K) after each round."""
        sums = np.repeat(self.base[None], len(inputs), axis=0)
        for roots in self.roots:
            sums = sums + self.answers(inputs, roots)
            yield self.to_outputs(sums)

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """Outputs float64 (N, K) for float32 (N, F), or (N, F, 1, 1)."""
        rows, shape = inputs.reshape(len(inputs), -1), (-1, *self.roots.shape)
        parts = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
        sums = [self.answers(part, self.roots.ravel()).reshape(shape).sum(axis=1) for part in parts]
        return self.to_outputs(np.concatenate(sums) + self.base)

    def to_outputs(self, sums: np.ndarray) -> np.ndarray:
        """Sums (N, R) of the trees' answers -> (N, K): of two classes, the first one's logit is 0."""
        return np.column_stack([np.zeros(len(sums)), sums]) if self.outputs == 2 else sums

    def named_modules(self) -> list[tuple[str, Any]]:
        """No layers, which `model.freeze` could name."""
        return []

    def keep(self, rounds: int) -> None:
        """Drop the trees after so many rounds."""
        end = self.roots[rounds, 0] if rounds < len(self.roots) else None
        self.roots = self.roots[:rounds]
        self.nodes = {name: array[:end] for name, array in self.nodes.items()}

    def arrays(self) -> dict[str, np.ndarray]:
        """What model.safetensors holds."""
        return {**self.nodes, "roots": self.roots, "base": self.base}


def fit(experiment: Experiment, run: Run, checkpoint: Path | None = None) -> None:
    """Grow the trees, keep the number of rounds with the lowest validation loss, and log how it went.

    Raises:
        UserError: several processes, or weights to start from.
    """
    cfg = experiment.cfg
    if cfg.model.get("pretrained") or cfg.model.get("weights"):
        raise UserError("model=trees starts from nothing: leave model.pretrained and model.weights out.")
    if cfg.trainer.devices not in (1, "auto"):
        raise UserError(f"model=trees trains in one process: leave trainer.devices={cfg.trainer.devices} out.")
    run.log.info("model=trees has no use for the keys of trainer, optimizer and scheduler.")
    trees: Trees = experiment.build_network()
    train, val = experiment.split("train"), experiment.split("val")
    trees.grow(train.images.values, standardise(train), class_weights(experiment), cfg.seed)
    losses = {"train/loss": staged_losses(trees, train), "val/loss": staged_losses(trees, val)}
    best = int(losses["val/loss"].argmin())
    rounds = sorted({*np.linspace(0, len(trees.roots) - 1, ROWS).astype(int).tolist(), best})
    (inputs, targets), scores = evaluated(experiment, "val"), {}
    for number, outputs in enumerate(trees.staged(inputs)):
        if number in rounds:
            scores[number] = experiment.score(experiment.task.collect(outputs.astype(np.float32), *targets))
    for epoch, number in enumerate(rounds, 1):
        row = {"epoch": epoch, "step": number + 1, "lr": float(cfg.model.shrinkage)}
        row |= {name: float(values[number]) for name, values in losses.items()}
        run.log_epoch(row | {f"val/{name}": value for name, value in scores[number].items()})
    total = len(trees.roots)
    run.log.info("Kept the first %d of %d rounds of trees: the validation loss is lowest there.", best + 1, total)
    trees.keep(best + 1)
    score = scores[best][experiment.task.monitor.removeprefix("val/")]
    checkpoints = Checkpoints(run.path / "checkpoints", 1, 1, experiment.task.mode)

    def save(folder: Path) -> None:
        save_weights(folder / "model.safetensors", trees.arrays(), experiment.metadata(trees))

    checkpoints.add(rounds.index(best) + 1, best + 1, score, save)


def standardise(split: Any) -> np.ndarray:
    """Targets as the trees learn them: int64 classes, or float64 standardised numbers."""
    targets: np.ndarray = split.targets if split.classes else split.preprocessing.encode_target(split.targets)
    return targets


def class_weights(experiment: Experiment) -> np.ndarray | None:
    """Weight of each training row, by `loss.class_weights`."""
    split, method = experiment.split("train"), experiment.cfg.loss.get("class_weights", "none")
    weights = weigh_classes(method, split.class_counts()) if split.classes else None
    return None if weights is None else weights[split.targets]


def staged_losses(trees: Trees, split: Any) -> np.ndarray:
    """Mean loss after each round, float64 (T,), on at most 20,000 rows: cross-entropy, or the squared error."""
    rows = np.random.default_rng(0).permutation(len(split))[:SCORED]
    targets, losses = standardise(split)[rows], []
    for outputs in trees.staged(split.images.values[rows]):
        if split.classes:
            shifted = outputs - outputs.max(axis=1, keepdims=True)
            losses.append(np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(rows)), targets])
        else:
            losses.append((outputs[:, 0] - targets) ** 2)
    return np.mean(losses, axis=1)


def evaluated(experiment: Experiment, split: str) -> tuple[np.ndarray, list[np.ndarray]]:
    """Inputs (N, F) of a split and targets as the task takes them; the first N rows if `trainer` limits the batches."""
    parts = [targets for _, *targets in experiment.build_loader(split)]
    targets = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
    return experiment.split(split).images.values[: len(targets[0])], targets


def load_network(experiment: Experiment, checkpoint: Path) -> Trees:
    """The trees of a checkpoint folder."""
    trees: Trees = experiment.build_network(initial=False)
    arrays, _ = load_weights(checkpoint / "model.safetensors")
    trees.roots, trees.base = arrays.pop("roots"), arrays.pop("base")
    trees.nodes = arrays
    return trees


def predict(experiment: Experiment, network: Trees, split: str) -> list[Any]:
    """What the task collects from the predictions for a split."""
    inputs, targets = evaluated(experiment, split)
    return list(experiment.task.collect(network(inputs).astype(np.float32), *targets))


def predict_images(network: Trees, images: np.ndarray) -> np.ndarray:
    """Outputs float32 (B, K) for rows float32 (B, F)."""
    return network(np.asarray(images)).astype(np.float32)


def list_layers(network: Trees, shape: tuple[int, ...]) -> list[dict[str, Any]]:
    """One row for all trees; their parameters are the thresholds and the leaves' values."""
    rounds, trees = network.roots.shape
    kind = f"{rounds * trees} trees in {rounds} rounds"
    return [
        {"name": "trees", "type": kind, "output_shape": (1, network.outputs), "parameters": len(network.nodes["value"])}
    ]


def compare(experiment: Experiment, split: str) -> dict[str, float]:
    """Scores of trees with the defaults, grown on (at most 200,000) training rows, beside another model's.

    The number of rounds is chosen by the validation loss, as `fit` does.
    """
    inputs, targets = evaluated(experiment, split)
    outputs = grown(experiment)(inputs).astype(np.float32)
    return experiment.task.metrics(experiment.task.collect(outputs, *targets), experiment.classes)


def grown(experiment: Experiment) -> Trees:
    """The trees to compare with, grown once for each experiment."""
    found: Trees | None = vars(experiment).get("trees")
    if found is None:
        train = experiment.split("train")
        rows = np.random.default_rng(experiment.cfg.seed).permutation(len(train))[:MOST_ROWS]
        found = Trees(len(experiment.classes), {"max_iter": 300})
        weights = class_weights(experiment)
        weights = weights if weights is None else weights[rows]
        found.grow(train.images.values[rows], standardise(train)[rows], weights, experiment.cfg.seed)
        found.keep(int(staged_losses(found, experiment.split("val")).argmin()) + 1)
        vars(experiment)["trees"] = found
    return found


def permutation_importance(
    experiment: Experiment, split: str, predict: Callable[[np.ndarray], np.ndarray]
) -> dict[str, float]:
    """What the first score loses when a column's values are shuffled (Breiman 2001), most important first.

    Computed on at most 2,000 random rows. Columns that say the same share their importance, so that each may look
    unimportant.
    """
    rng, data = np.random.default_rng(experiment.cfg.seed), experiment.split(split)
    inputs, targets = evaluated(experiment, split)
    rows = rng.permutation(len(inputs))[:SHUFFLED]
    inputs, targets = inputs[rows], [array[rows] for array in targets]
    name = "accuracy" if data.classes else "r2"

    def score(values: np.ndarray) -> float:
        outputs = np.asarray(predict(values), np.float32)
        return experiment.task.metrics(experiment.task.collect(outputs, *targets), experiment.classes)[name]

    whole, found = score(inputs), {}
    for index, column in enumerate(data.preprocessing.names):
        shuffled = inputs.copy()
        shuffled[:, index] = rng.permutation(shuffled[:, index])
        found[column] = whole - score(shuffled)
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))

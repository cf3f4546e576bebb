"""A run's card: found for a checkpoint, and written when the run is evaluated."""

from pathlib import Path
from typing import Any

from src.kit.catalog import dataset_specs
from src.kit.config import UserError
from src.kit.inference import Card, parse_card, read_card
from src.kit.run import read_json
from src.kit.training.experiment import Experiment
from src.kit.weights import load_metadata


def find_card(run: Path, checkpoint: Path) -> Card:
    """The card of a run if it describes this checkpoint, or else the one in its weights.

    Raises:
        UserError: there is none, as in runs of earlier versions.
    """
    if (run / "card.json").is_file() and (card := read_card(run)).weights.get("checkpoint") == checkpoint.name:
        return card
    weights = checkpoint / "model.safetensors"
    metadata = load_metadata(weights)
    if "card" not in metadata:
        raise UserError(f"{run} was trained by an earlier version: run `python scripts/test.py {run}` once.")
    return parse_card(metadata["card"], str(weights))


def write_card(experiment: Experiment, run: Path, checkpoint: Path) -> Path:
    """Write a run's card.json: its checkpoint's card, with scores, data, versions and the weights' origin."""
    cfg, info = experiment.cfg, read_json(run / "run.json")
    spec = dataset_specs().get(cfg.data.name)
    splits = {
        name: {key: part[key] for key in ("samples", "sha256") if key in part}
        for name, part in read_json(run / "splits.json").items()
    }
    experiment.task.threshold = chosen_threshold(run, checkpoint)
    teacher = cfg.trainer.distill.teacher
    card = experiment.card(
        metrics={name: read_scores(run, name, checkpoint.name) for name in ("val", "test")},
        data={"name": cfg.data.name, "licence": spec.licence if spec else None, "splits": splits},
        weights={"checkpoint": checkpoint.name} | ({"teacher": teacher} if teacher else {}),
        versions={**info.get("versions", {}), "git_commit": info.get("git_commit")},
    )
    return card.write(run)


def chosen_threshold(run: Path, checkpoint: Path, split: str = "val") -> float | None:
    """The least score of what is reported, as the evaluation of the validation split chose it for a checkpoint."""
    threshold: float | None = read_scores(run, split, checkpoint.name).get("threshold")
    return threshold


def read_scores(run: Path, split: str, checkpoint: str) -> dict[str, Any]:
    """The scores of a split, if this checkpoint was evaluated on the run's own data."""
    scores = read_json(run / f"evaluation-{split}.json")
    if scores.get("checkpoint") != checkpoint or "overrides" in scores:
        return {}
    return {name: value for name, value in scores.items() if isinstance(value, int | float)}

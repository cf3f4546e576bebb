"""Distillation: a teacher for a student, both frameworks' part of it.

A student learns from its targets and from the probabilities that a larger network, its teacher, gives each class
(Hinton et al. 2015, arXiv 1503.02531). Any run can teach, one of the other framework too: its weights are neutral.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from src.kit.config import UserError, load_config
from src.kit.inference import Card
from src.kit.training.cards import find_card
from src.kit.training.checkpoints import find_checkpoint
from src.kit.training.evaluation import own_engine
from src.kit.training.experiment import Experiment
from src.kit.training.splits import count_trained
from src.kit.weights import load_weights


@dataclass(frozen=True)
class Teacher:
    """A network in evaluation mode, and how the student's batches become its input."""

    network: Any
    temperature: float  # divides both networks' logits
    weight: float  # of the teacher in the loss, 0 to 1
    scale: np.ndarray  # float32 (C, 1, 1): the teacher's input is scale * the student's + shift
    shift: np.ndarray
    size: tuple[int, int] | None  # height and width that it takes; None: any, as of tables


def check_teacher(experiment: Experiment) -> list[str]:
    """What the run's log should say about the teacher of `trainer.distill`; nothing if there is none.

    Raises:
        UserError: no such run, or one that cannot teach this student.
    """
    if not experiment.cfg.trainer.distill.teacher:
        return []
    find_teacher(experiment)
    run = Path(experiment.cfg.trainer.distill.teacher)
    seen = {split: count_trained(experiment, run, split) for split in ("val", "test")}
    return [
        f"The teacher was trained on {count:,} of the {split} samples, so that the student's scores may flatter: train "
        "both with the same data, seed and fractions."
        for split, count in seen.items()
        if count
    ]


def find_teacher(experiment: Experiment) -> tuple[Card, Path]:
    """The teacher's card and its best checkpoint.

    Raises:
        UserError: as `check_teacher`.
    """
    cfg, run = experiment.cfg, Path(experiment.cfg.trainer.distill.teacher)
    own = experiment.card()
    if own.output != {"kind": "classes"} or own_engine(cfg):
        what = f"task={cfg.task}" if own.output != {"kind": "classes"} else f"model={cfg.model.name}"
        raise UserError(
            f"A teacher is for networks that tell one class for each sample, not for {what}: leave "
            "trainer.distill.teacher out."
        )
    weights = find_checkpoint(run, "best")
    card = find_card(run, weights)
    if own_engine(load_config([], base=run / "config.yaml")):
        raise UserError(f"{run} has model={card.model}, which is no network: choose another trainer.distill.teacher.")
    if card.kind != own.kind or card.output != own.output:
        raise UserError(f"{run} was trained for task={card.task}, and the student is for task={cfg.task}.")
    for number, (known, other) in enumerate(zip_longest(card.classes, own.classes), 1):
        if known != other:
            raise UserError(
                f"Class {number} is {known!r} to the teacher {run} and {other!r} in data={cfg.data.name}: a teacher "
                "must have been trained on the same classes in the same order."
            )
    refuse_other_input(card, own, run)
    return card, weights


def refuse_other_input(card: Card, own: Card, run: Path) -> None:
    """Refuse a teacher whose input cannot be made from the student's.

    Raises:
        UserError: says what differs.
    """
    if own.kind != "images":
        if card.input != own.input:
            raise UserError(
                f"The teacher {run} encodes other columns, or was fitted to other rows: train it with the data, seed "
                "and fractions of the student."
            )
        return
    if card.input["shape"][0] != own.input["shape"][0]:
        raise UserError(
            f"The teacher {run} takes images of {card.input['shape'][0]} channels, and the student of "
            f"{own.input['shape'][0]}: train one of them on the other's images."
        )
    for key in ("range", "bands"):
        values = [(each.input.get("pixels") or {}).get(key) for each in (card, own)]
        if values[0] != values[1]:
            raise UserError(
                f"The teacher {run} was trained with data.{key}={values[0]}, and the student has {values[1]}: set the "
                "same for both."
            )


def load_teacher(experiment: Experiment) -> Teacher | None:
    """Build the teacher of `trainer.distill` in the student's framework; None if there is none.

    Raises:
        UserError: as `check_teacher`, or its network is not in this framework.
    """
    keys = experiment.cfg.trainer.distill
    if not keys.teacher:
        return None
    card, weights = find_teacher(experiment)
    framework = experiment.cfg.framework
    cfg = load_config([f"framework={framework}"], base=Path(keys.teacher) / "config.yaml")
    network = Experiment.from_card(cfg, card).build_network(initial=False)
    import_module(f"src.kit.{framework}").weights_from_numpy(network, *load_weights(weights / "model.safetensors"))
    network.eval()
    scale, shift, size = np.ones((1, 1, 1), np.float32), np.zeros((1, 1, 1), np.float32), None
    if card.kind == "images":
        own = experiment.card().input
        (mean, std), (own_mean, own_std) = (scale_of(each) for each in (card.input, own))
        scale, shift, size = own_std / std, (own_mean - mean) / std, (card.input["shape"][1], card.input["shape"][2])
    return Teacher(network, keys.temperature, keys.weight, scale, shift, size)


def scale_of(inputs: Mapping[str, Any]) -> list[np.ndarray]:
    """Mean and standard deviation of each channel, float32 (C, 1, 1), of a card's `input`."""
    return [np.array(inputs[key], np.float32)[:, None, None] for key in ("mean", "std")]

"""The card of a network: everything that is needed to use its weights, as JSON."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from src.kit.errors import UserError
from src.kit.storage import write_text

FORMAT = 1
NAME = "card.json"


@dataclass(frozen=True)
class Card:
    """What a network says of itself. Each kind of data, such as "images", documents its keys of `input` and `output`.

    The first fields are known when training begins and lie in model.safetensors too; those from `metrics` on are added
    when a run is evaluated.
    """

    task: str  # `src/tasks/<task>.py`
    kind: str  # of the data; "images", or else the module `src/kit/inference_<kind>.py`
    classes: tuple[str, ...]  # names of the outputs
    input: Mapping[str, Any]  # shape without the batch, such as [3, 224, 224], and how data become such arrays
    output: Mapping[str, Any]  # how outputs become predictions
    model: str = ""
    framework: str = ""
    network: Mapping[str, Any] = field(default_factory=dict)  # further arguments of the network's `build`
    metrics: Mapping[str, Any] = field(default_factory=dict)  # split -> score -> value
    data: Mapping[str, Any] = field(default_factory=dict)  # name, licence, and each split's samples and SHA-256
    weights: Mapping[str, Any] = field(default_factory=dict)  # checkpoint, and what the training started from
    versions: Mapping[str, str] = field(default_factory=dict)  # of Python, the framework and other packages
    reference: Mapping[str, Any] = field(default_factory=dict)  # feature -> histogram: see `Drift`; of exports
    runtime: Mapping[str, Any] = field(default_factory=dict)  # of an optimized export: precision, threads and batch
    format: int = FORMAT

    def to_json(self) -> str:
        """Serialise; equal cards give equal texts."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False)

    def write(self, folder: Path) -> Path:
        """Write `folder/card.json`, whole or not at all."""
        return write_text(folder / NAME, self.to_json() + "\n")


def read_card(folder: Path) -> Card:
    """Read `folder/card.json`.

    Raises:
        UserError: there is none, or it is damaged or of a later version.
    """
    path = folder / NAME
    if not path.is_file():
        raise UserError(f"{folder} has no {NAME}: give the folder of a run or of an export.")
    return parse_card(path.read_text("utf-8"), str(path))


def parse_card(text: str, source: str) -> Card:
    """Undo `Card.to_json`; `source` is for messages.

    Raises:
        UserError: as `read_card`.
    """
    try:
        values = json.loads(text)
        if values["format"] > FORMAT:
            raise UserError(
                f"{source} has format {values['format']}, and this project reads up to {FORMAT}: update the project."
            )
        known = {each.name for each in fields(Card)}
        kept = {name: value for name, value in values.items() if name in known}
        return Card(**kept | {"classes": tuple(values["classes"])})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{source} is not a card ({error}): export or evaluate the run again.") from error

"""Which data set this machine should train on, and how much of it at once, from its GPUs' memory."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from src.kit.catalog.spec import specs
from src.kit.config import UserError, unknown
from src.kit.hardware import Hardware, dataset_tier, detect

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "data"
STAGES = {"debug": "debug_datasets.yaml", "production": "production_datasets.yaml"}


@dataclass(frozen=True)
class Selection:
    """A data set and the configuration keys that fit the machine.

    `tier` is "debug", "production-conservative" or "production-full"; `memory_mib` and `minutes` are what one epoch
    and its evaluation may take, which `scripts/quick_validate.py` and `scripts/full_validate.py` measure.
    """

    tier: str
    task: str
    dataset: str
    overrides: dict[str, Any]
    memory_mib: int
    minutes: int
    reason: str

    @property
    def arguments(self) -> list[str]:
        """The selection as scripts/train.py takes it: `data=cifar10 data.batch_size=128`."""
        return [f"data={self.dataset}", *(f"{key}={value}" for key, value in self.overrides.items())]


def auto_select_dataset(
    task: str = "classification",
    hardware: Hardware | None = None,
    stage: str | None = None,
    dataset: str | None = None,
) -> Selection:
    """Select the tier by the smallest GPU, and the data set by tier and task.

    Without a GPU, or with less than 8 GB: debug. From 8 to 16 GB: production, conservative. Above: production, full.

    Args:
        hardware: None looks at this machine.
        stage: one of `STAGES`, whatever the machine; production is then conservative where debug would be chosen.
        dataset: this one and not the tier's; a data set that the tier does not list gets the keys for all of them.

    Raises:
        UserError: an unknown stage, a task that has no data sets, or a data set for other tasks.
    """
    tier, reason = dataset_tier(hardware or detect())
    if stage is not None:
        tier, reason = force(stage, tier, reason)
    values = tiers()[tier]
    if task not in values["tasks"]:
        raise UserError(unknown("task", task, values["tasks"]))
    choice = values["tasks"][task]
    name = dataset or choice["default"]
    if name in specs() and task not in specs()[name].tasks:
        tasks = " and ".join(specs()[name].tasks)
        raise UserError(f"{name} is for {tasks}, not for {task}: choose another data set, or set task.")
    overrides = {**values["overrides"], **choice["datasets"].get(name, {})}
    return Selection(tier, task, name, overrides, values["memory_mib"], values["minutes"], reason)


def force(stage: str, tier: str, reason: str) -> tuple[str, str]:
    """The tier of a stage that was asked for, and why."""
    if stage not in STAGES:
        raise UserError(unknown("stage", stage, STAGES))
    if tier.startswith(stage):
        return tier, reason
    other = "debug" if stage == "debug" else "production-conservative"
    return other, f"{stage} was asked for; of itself this machine gets {tier}, since {reason}"


@cache
def tiers() -> dict[str, dict[str, Any]]:
    """Tier -> its limits, overrides and data sets."""
    found: dict[str, dict[str, Any]] = {}
    for name in STAGES.values():
        found |= OmegaConf.to_container(OmegaConf.load(FOLDER / name))
    return found

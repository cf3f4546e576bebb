"""Check a data set from its folder to its last pixel."""

import os
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from omegaconf import DictConfig

from src.kit.catalog import SPLITS, build_dataset
from src.kit.checks.arrays import check_arrays
from src.kit.checks.duplicates import find_copies
from src.kit.checks.files import Source
from src.kit.checks.images import Facts
from src.kit.checks.issues import KINDS, SEVERITIES, Finding
from src.kit.checks.scan import scan
from src.kit.config import UserError, resolve, unknown

SOURCES: dict[str, str] = {  # called with the data set's folder
    "coco128": "src.kit.scenes_checks.yolo:coco128",
    "coco2017": "src.kit.scenes_checks.coco:CocoFolder",
    "coco_folder": "src.kit.scenes_checks.coco:CocoFolder",
    "digit_scenes": "src.kit.scenes_checks.coco:CocoFolder",
    "image_folder": "src.kit.checks.class_folders:ClassFolders",
    "imagenet": "src.kit.checks.class_folders:ClassFolders",
    "yolo_folder": "src.kit.scenes_checks.yolo:YoloFolder",
}
IN_MEMORY = ("cifar10", "digits", "mnist")  # packed by their publishers: `check_arrays`
TABLES = ("breast_cancer", "housing", "table_file", "wine")
CHECK_TABLE = {"table": "src.kit.tabular_checks.tables:check_table"}
ENLARGED = 8  # a smaller image would be enlarged more than so many times


@dataclass(frozen=True)
class Result:
    """What was looked at and what was found."""

    name: str
    source: Source
    facts: Mapping[str, Facts]
    findings: list[Finding]  # errors first
    seconds: float

    def count(self, severity: str) -> int:
        """The number of findings."""
        return sum(finding.severity == severity for finding in self.findings)


def movable(name: str) -> bool:
    """Whether the data set has image files that a quarantine can move."""
    return name in SOURCES


def check(cfg: DictConfig, workers: int) -> Result:
    """Check the data set `cfg.data`.

    Raises:
        UserError: there is no such folder, or what is in it is no such data set at all.
    """
    started = time.perf_counter()
    name = cfg.data.name
    if name in IN_MEMORY:
        source = check_arrays(cfg)
        facts: dict[str, Facts] = {}
    elif name in TABLES:
        source, facts = resolve(CHECK_TABLE, "table", "check")(cfg), {}
    elif name in SOURCES:
        root = Path(cfg.data.root).expanduser()
        if not root.is_dir():
            raise UserError(
                f"data.root={root} does not exist: set data.root, or fetch the data with scripts/download.py."
            )
        source = resolve(SOURCES, name, "data set")(root)
        source.task = cfg.get("task", "")
        source.recount = partial(count_groups, cfg) if cfg.data.get("group_pattern") else None
        facts = dict(zip(*look(source, workers), strict=True))
        source.findings += image_findings(facts, cfg.data.image_size)
        source.findings += find_copies(source.entries, [facts[entry.path] for entry in source.entries])
        source.check(facts)
    else:
        raise UserError(
            f"{unknown('data set to check', name, [*SOURCES, *IN_MEMORY, *TABLES])} Check the data that it is made of."
        )
    order = {kind: (SEVERITIES.index(KINDS[kind].severity), place) for place, kind in enumerate(KINDS)}
    findings = sorted(source.findings, key=lambda finding: (order[finding.kind], finding.path, finding.sentence))
    return Result(name, source, facts, findings, time.perf_counter() - started)


def count_groups(cfg: DictConfig, source: Source) -> None:
    """Count the samples of the splits that training cuts, which may lack a class: whole groups go into one of them.

    Splits in files of their own, and data with errors, which training would refuse, keep the files' counts.
    """
    if set(SPLITS) <= source.counts.keys() or any(finding.severity == "error" for finding in source.findings):
        return
    try:
        splits = {split: build_dataset(cfg, split) for split in SPLITS}
    except UserError as error:
        source.add("structure", ".", str(error))
        return
    source.classes = splits["train"].classes
    source.counts.clear()
    for split, data in splits.items():
        source.counts[split].update(dict(zip(data.classes, data.class_counts().tolist(), strict=True)))


def look(source: Source, workers: int) -> tuple[list[str], list[Facts]]:
    """Every image's path and facts."""
    paths = [entry.path for entry in source.entries]
    return paths, scan([os.path.join(source.root, path) for path in paths], workers)


def image_findings(facts: Mapping[str, Facts], image_size: int) -> list[Finding]:
    """What is odd about single images. Grey ones are only odd among colour ones."""
    kinds = Counter(kind for found in facts.values() for kind, _ in found.problems)
    usual = {"grey"} if 2 * kinds["grey"] > len(facts) else set()
    findings = []
    for path, found in facts.items():
        findings += [Finding(kind, path, sentence) for kind, sentence in found.problems if kind not in usual]
        if found.width and min(found.width, found.height) * ENLARGED < image_size:
            sentence = f"{found.width} x {found.height} pixels would become {image_size} on the short side."
            findings.append(Finding("tiny", path, sentence))
    return findings

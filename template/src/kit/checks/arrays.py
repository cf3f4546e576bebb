"""Check the data sets that their publishers pack into few files: the arrays that training gets."""

import hashlib
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from src.kit.catalog import SPLITS, build_dataset
from src.kit.checks.duplicates import find_copies
from src.kit.checks.files import Entry, Source
from src.kit.checks.images import Facts

BATCH = 10_000  # images that are hashed at a time


def check_arrays(cfg: DictConfig) -> Source:
    """Counts, class balance and exact copies, within a split and between them; an image is called train[7].

    The loaders check the files' structure, and a checksum their content.
    """
    source = Source(Path(cfg.data.get("root") or "."))
    facts: list[Facts] = []
    for split in SPLITS:
        data = build_dataset(cfg, split)
        source.unit, source.classes = "images", data.classes
        source.counts[split].update(dict.fromkeys(data.classes, 0))
        source.counts[split].update(data.classes[target] for target in data.targets)
        for start in range(0, len(data), BATCH):
            images = data.images.get(np.arange(start, min(start + BATCH, len(data))))
            for number, image in enumerate(images, start):
                source.entries.append(Entry(f"{split}[{number}]", split, data.classes[data.targets[number]]))
                facts.append(Facts(image.nbytes, hashlib.sha256(image.tobytes()).digest()[:16]))
    source.findings += find_copies(source.entries, facts)
    source.check_balance()
    return source

"""Read and write the files of a run folder."""

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON file's object, or an empty one when there is no such file."""
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return values


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a JSONL file, without a last one that a crash cut short."""
    rows: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def open_log(log: logging.Logger, path: Path) -> list[logging.Handler]:
    """Send a logger's messages to train.log in full, and the important ones to the console."""
    log.setLevel(logging.DEBUG)
    log.propagate = False
    file, console = logging.FileHandler(path, encoding="utf-8"), logging.StreamHandler(sys.stdout)
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    console.setLevel(logging.INFO)
    for handler in (file, console):
        log.addHandler(handler)
    return [file, console]


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file as a whole."""
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(json.dumps(value, indent=2), "utf-8")
    os.replace(temporary, path)

"""How a run was made: what a reader needs to repeat it."""

import importlib.metadata
import platform
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from src.kit.hardware import detect

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("torch", "torchvision", "pytorch-lightning", "paddlepaddle", "paddlepaddle-gpu", "numpy", "omegaconf")


def describe(cfg: DictConfig) -> dict[str, Any]:
    """What a reader needs to repeat the run: versions, git commit, template version, seed, hardware, command."""
    installed = {}
    for package in PACKAGES:
        try:
            installed[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    answers = ROOT / ".copier-answers.yml"
    recorded = OmegaConf.load(answers) if answers.exists() else {}
    return {
        "framework": cfg.framework,
        "seed": cfg.seed,
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": ["python", *sys.argv],
        "git_commit": git_commit(),
        "template_version": recorded.get("_commit") or recorded.get("template_version"),
        "versions": {"python": platform.python_version(), **installed},
        "hardware": detect().to_dict(),
    }


def git_commit() -> str | None:
    """The project's commit, with `-dirty` behind it where tracked files differ; None outside git."""
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
        changed = subprocess.run(["git", "diff", "--quiet", "HEAD"], cwd=ROOT, capture_output=True, check=False)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("-dirty" if changed.returncode else "")

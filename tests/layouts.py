"""Small projects as they are found elsewhere, which `nox -s adopt` brings under the template.

Each has the files, names and rules of its kind that meet the template's: packages with empty `__init__.py`, a
pyproject.toml, a .gitignore whose rules reach into src/, modules where the template's components are.
"""

import json
from pathlib import Path

from tests.history import commit_all, git

NOTEBOOK = {
    "cells": [{"cell_type": "code", "metadata": {}, "outputs": [], "source": ["import torch\n", "torch.rand(3)"]}],
    "metadata": {},
    "nbformat": 4,
    "nbformat_minor": 5,
}
NET = "import torch\n\n\nclass {}(torch.nn.Module):\n    def forward(self, batch):\n        return batch\n"
LAYOUTS: dict[str, dict[str, str]] = {
    # configs/ beside src/, a LightningModule and a DataModule, Hydra starts src/train.py
    "lightning-hydra": {
        ".gitignore": "__pycache__/\n*.ckpt\n/data/\n/logs/\n.env\n",
        ".pre-commit-config.yaml": "repos:\n  - repo: local\n    hooks: []\n",
        ".project-root": "",
        "Makefile": "train:\n\tpython src/train.py\n",
        "configs/__init__.py": "",
        "configs/model/mnist.yaml": "_target_: src.models.mnist_module.MNISTModule\nlr: 0.001\n",
        "configs/train.yaml": "defaults:\n  - _self_\n  - model: mnist\n",
        "environment.yaml": "name: digits\ndependencies:\n  - pytorch=2.*\n  - pip:\n      - hydra-core\n",
        "logs/.gitkeep": "",
        "pyproject.toml": '[tool.pytest.ini_options]\ntestpaths = "tests/"\n',
        "requirements.txt": "torch>=2.0\nhydra-core==1.3.2\n",
        "scripts/schedule.sh": "python src/train.py -m seed=1,2\n",
        "setup.py": "from setuptools import setup\n\nsetup(name='src')\n",
        "src/__init__.py": "",
        "src/data/__init__.py": "",
        "src/data/mnist_datamodule.py": "import torch.utils.data\n",
        "src/models/__init__.py": "",
        "src/models/components/__init__.py": "",
        "src/models/components/dense.py": NET.format("Dense"),
        "src/models/mnist_module.py": "from src.models.components.dense import Dense\n\nNET = Dense()\n",
        "src/train.py": "from src.models.mnist_module import NET\n\nprint(NET)\n",
        "src/utils/__init__.py": "",
        "tests/__init__.py": "",
        "tests/conftest.py": "import pytest\n",
    },
    # a package of its own name beside data/, models/ and reports/
    "data-science": {
        ".gitignore": "data/\n*.egg-info/\nbuild/\nlib/\n.venv\n",
        "Makefile": "features:\n\tpython -m leaf_rust.features\n",
        "data/raw/.gitkeep": "",
        "docs/docs/index.md": "# Leaf rust\n",
        "leaf_rust/__init__.py": "from leaf_rust import config  # noqa: F401\n",
        "leaf_rust/config.py": "from pathlib import Path\n\nROOT = Path(__file__).resolve().parents[1]\n",
        "leaf_rust/modeling/__init__.py": "",
        "leaf_rust/modeling/train.py": "from torch import nn\n\nNET = nn.Linear(3, 4)\n",
        "models/.gitkeep": "",
        "notebooks/1.0-first-look.ipynb": json.dumps(NOTEBOOK, indent=1),
        "pyproject.toml": '[build-system]\nrequires = ["flit_core"]\n\n[project]\nname = "leaf_rust"\n'
        'dependencies = ["torch>=2", "pandas"]\n\n[tool.ruff]\nline-length = 99\n',
        "references/.gitkeep": "",
        "reports/figures/.gitkeep": "",
        "tests/test_data.py": "def test_code_is_tested():\n    assert True\n",
    },
    # notebooks and a script, nothing else
    "notebooks": {
        "Untitled.ipynb": json.dumps(NOTEBOOK, indent=1),
        "data/list.csv": "file,label\na.png,cat\n",
        "model final (2).ipynb": json.dumps(NOTEBOOK, indent=1),
        "utils.py": "def load(path):\n    return open(path).read()\n",
    },
}


def make_layout(name: str, folder: Path) -> None:
    """Write one of them into `folder`, with a commit."""
    for file, text in LAYOUTS[name].items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(text, "utf-8", newline="\n")
    git(folder, "init", "--quiet")
    git(folder, "add", "--force", "--all")
    commit_all(folder, "ours")

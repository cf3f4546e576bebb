"""A user's own network, loss, optimizer and schedule: one file and one YAML each, and no other file is touched."""

import ast
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from paths import TEMPLATE
from src.kit.errors import run_main, way_out

SCHEDULE = '''
from collections.abc import Callable
from typing import Annotated

from src.kit.config import Range


def build(
    *, total_steps: int, steps_per_epoch: int, power: Annotated[float, Range(above=0)] = 2.0
) -> Callable[[float], float]:
    """Return factor(step): (1 - progress) ** power.

    Args:
        power: Exponent of the polynomial.
    """
    return lambda step: (1 - step / total_steps) ** power
'''

NETWORK = '''
from typing import Annotated

import torch
from torch import nn

from src.kit.config import Range


class Block(nn.Module):
    """ConvNeXt's block (Liu et al. 2022, arXiv 2201.03545)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.mlp(self.norm(self.depthwise(x).permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


def build(
    *, classes: int, channels: int, image_size: int, width: Annotated[int, Range(min=1)] = 16, depth: int = 2
) -> nn.Module:
    """Return the network: float32 (B, C, H, W) -> logits (B, K).

    Args:
        width: Channels of all blocks.
        depth: Number of blocks.
    """
    blocks = [Block(width) for _ in range(depth)]
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(nn.Conv2d(channels, width, 2, stride=2), *blocks, *pool, nn.Linear(width, classes))
'''

SAME_NETWORK = '''
from torch import nn


def build(*, classes: int, channels: int, image_size: int) -> nn.Module:
    """The network of benchmarks/plain_lightning.py digits."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((channels, 16), (16, 32), (32, 32)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, classes))
'''

LOSS = '''
from collections.abc import Callable
from typing import Annotated

import numpy as np
import torch

from src.kit.config import Range


def build(
    class_counts: np.ndarray | None, *, margin: Annotated[float, Range(above=0)] = 1.0
) -> Callable[..., torch.Tensor]:
    """Return the multi-class hinge loss.

    Args:
        margin: Distance between the right and any other class.
    """
    return torch.nn.MultiMarginLoss(margin=margin)
'''

OPTIMIZER = '''
from collections.abc import Iterable
from typing import Annotated

import torch

from src.kit.config import Range


def build(
    parameters: Iterable[torch.nn.Parameter], *, fused: bool, lr: Annotated[float, Range(above=0)] = 0.002
) -> torch.optim.Optimizer:
    """Return NAdam.

    Args:
        lr: Peak learning rate.
    """
    return torch.optim.NAdam(parameters, lr)
'''

MISTAKEN = """
from {package} import nn


class Mistaken(nn.{base}):
    def __init__(self, classes: int, pixels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(pixels, classes))

    def forward(self, x):
        return self.layers(x) if self.training else self.layers(y)


def build(*, classes: int, channels: int, image_size: int) -> nn.{base}:
    return Mistaken(classes, channels * image_size**2)
"""

SHAPES = """
from {package} import nn


class Narrow(nn.{base}):
    def forward(self, x):
        return x if self.training else x[:, 1:]


def build(*, classes: int, channels: int, image_size: int, width: int) -> nn.{base}:
    layers = [nn.Linear(channels * image_size**2, width), Narrow(), nn.Linear(width, classes)]
    return nn.Sequential(nn.Flatten(), *layers)
"""

FILES = {
    "models/lightning/blank.py": "",
    "configs/model/blank.yaml": "name: blank\n",
    "models/lightning/nothing.py": "def build(*, classes, channels, image_size):\n    pass\n",
    "configs/model/nothing.yaml": "name: nothing\n",
    "models/lightning/shapes.py": SHAPES.format(package="torch", base="Module"),
    "models/paddle/shapes.py": SHAPES.format(package="paddle", base="Layer"),
    "configs/model/shapes.yaml": "width: 32\n",
    "configs/model/shapes_alone.yaml": "file: shapes\n",
    "models/lightning/mistaken.py": MISTAKEN.format(package="torch", base="Module"),
    "models/paddle/mistaken.py": MISTAKEN.format(package="paddle", base="Layer"),
    "configs/model/mistaken.yaml": "name: mistaken\n",
    "trainers/schedules/polynomial.py": SCHEDULE,
    "configs/scheduler/polynomial.yaml": "power: 3.0\n",
    "models/lightning/convnext_like.py": NETWORK,
    "configs/model/convnext_like.yaml": "width: 8\n",
    "configs/model/convnext_deep.yaml": "file: convnext_like\ndepth: 4\n",
    "models/lightning/same.py": SAME_NETWORK,
    "configs/model/same.yaml": "name: same\n",
    "tasks/losses/lightning/hinge.py": LOSS,
    "configs/loss/hinge.yaml": "margin: 0.5\n",
    "trainers/optimizers/lightning/nadam.py": OPTIMIZER,
    "configs/optimizer/nadam.yaml": "lr: 0.004\n",
}
CHOSEN = ["model=convnext_like", "scheduler=polynomial", "loss=hinge", "optimizer=nadam"]


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A copy of the project with a user's files."""
    root = tmp_path_factory.mktemp("own")
    for name in ("src", "scripts"):
        shutil.copytree(TEMPLATE / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in FILES.items():
        (root / "src" / name).write_text(text, "utf-8")
    return root


def run(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, check=False, timeout=120)


def test_all_of_them_train(project):
    keys = ["framework=lightning", "trainer=debug", "tracker=none", "scheduler.warmup_epochs=0.1"]
    done = run(project, "scripts/train.py", *CHOSEN, *keys)
    assert done.returncode == 0, done.stderr
    (config,) = project.glob("outputs/*/config.yaml")
    assert config.parent.name.startswith("convnext_like-digits")


@pytest.mark.parametrize("framework", ["lightning", "paddle"])
def test_a_mistake_in_an_own_network_shows_its_line_and_not_the_frameworks(project, framework):
    keys = [f"framework={framework}", "trainer=debug", "tracker=none", "trainer.checkpoint.every_n_steps=1"]
    done = run(project, "scripts/train.py", "model=mistaken", *keys, f"output_dir=mistaken-{framework}")
    lines = done.stderr[done.stderr.index("Without ") :].splitlines()
    assert (done.returncode, lines[-1]) == (1, "NameError: name 'y' is not defined"), done.stderr
    files = [line.split('"')[1] for line in lines if line.startswith("  File ")]
    assert files[-1] == str(project / "src" / "models" / framework / "mistaken.py")
    assert not [file for file in files if "site-packages" in file or "kit" in Path(file).parts]
    (log,) = project.glob(f"mistaken-{framework}/*/train.log")
    assert f"Failed: continue with --resume {log.parent.relative_to(project)}" in done.stdout
    assert "site-packages" in log.read_text("utf-8"), "the log has the whole traceback"


@pytest.mark.parametrize("framework", ["lightning", "paddle"])
@pytest.mark.parametrize("debug", [[], ["--debug"]])
def test_a_wrong_shape_names_the_layer(project, framework, debug):
    keys = [f"framework={framework}", "trainer=debug", "tracker=none", "trainer.checkpoint.every_n_steps=1"]
    folder = f"shapes-{framework}{''.join(debug)}"
    done = run(project, "scripts/train.py", "model=shapes", *keys, f"output_dir={folder}", *debug)
    assert done.returncode == 1
    layer = "It arose in the network's layer 3: Linear(in_features=32, out_features=10,"
    assert done.stderr.splitlines()[-1].startswith(layer), done.stderr
    assert ("Without " in done.stderr) == (not debug)
    (log,) = (project / folder).glob("*/train.log")
    assert f"\n{layer}" in log.read_text("utf-8")


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        (
            "shapes_alone",
            "classes=5, channels=3, image_size=8",
            "needs the key 'width': add it to src/configs/model, or",
        ),
        (
            "shapes",
            "classes=5, channels=3, image_size=8, size=8",
            "shapes.py: build() got an unexpected keyword argument 'size': take",
        ),
        ("blank", "classes=5", "src/models/lightning/blank.py has no function `build`: write one, as in the files"),
        ("nothing", "classes=5, channels=3, image_size=8", "`build` of model=nothing has returned nothing: end it"),
    ],
)
def test_a_build_with_other_arguments_is_one_sentence(project, name, given, message):
    code = (
        "from src.kit.config import UserError, build_component, load_config\n"
        f"cfg = load_config(['framework=lightning', 'model={name}'])\n"
        f"try: build_component('model', cfg.model, 'lightning', {given})\n"
        "except UserError as error: print(error)\n"
    )
    done = run(project, "-c", code)
    assert message in done.stdout, done.stderr


def test_a_mistake_of_the_kit_shows_everything():
    with pytest.raises(AttributeError):
        run_main(lambda _: way_out("no error", ""))


def test_the_schedule_follows_its_own_curve(project):
    code = (
        "from src.kit.config import load_config\n"
        "from src.kit.training import Schedule\n"
        "keys = ['scheduler=polynomial', 'scheduler.power=2']\n"
        "schedule = Schedule(load_config(keys).scheduler, 0.1, 10, 10)\n"
        "print([round(schedule.lr(step), 6) for step in (0, 50, 90)])\n"
    )
    done = run(project, "-c", code)
    assert done.stdout.strip() == "[0.1, 0.025, 0.001]", done.stderr


def test_a_second_yaml_is_a_variant_of_the_same_file(project):
    code = (
        "from src.kit.config import load_config\n"
        "from src.kit.training import build_model\n"
        "networks = [build_model(load_config([f'model={name}']), 5, 3, 32) for name in NAMES]\n"
        "print([sum(type(layer).__name__ == 'Block' for layer in network) for network in networks])\n"
        "print(sum(parameter.numel() for parameter in networks[-1].parameters()))\n"
    )
    done = run(project, "-c", "NAMES = ['convnext_like', 'convnext_deep', 'same']\n" + code)
    assert done.stdout.splitlines() == ["[2, 4, 0]", str(448 + 4_640 + 9_248 + 160 + 165)], done.stderr


def test_an_own_network_takes_a_fifth_of_the_lines_of_a_plain_script():
    """Lines of code without imports, of the same network trained on the same data (Lightning's documentation's way)."""
    script = (TEMPLATE.parent / "benchmarks" / "plain_lightning.py").read_text("utf-8")
    unused = 6  # of the script's lines: the network of its other training, and a second constructor
    plain = count_lines(script, ("Classifier", "digits")) - unused
    own = count_lines(SAME_NETWORK, ("build",)) + len(FILES["configs/model/same.yaml"].splitlines())
    print(f"{own} lines beside {plain}")
    assert own <= 0.2 * plain


def count_lines(text: str, names: Sequence[str]) -> int:
    """The lines of these functions and classes that hold statements other than imports and docstrings."""
    lines: set[int] = set()
    for node in (each for top in ast.parse(text).body if getattr(top, "name", "") in names for each in ast.walk(top)):
        text_only = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if isinstance(node, ast.stmt) and not text_only and not isinstance(node, (ast.Import, ast.ImportFrom)):
            lines |= {node.lineno} if hasattr(node, "body") else set(range(node.lineno, node.end_lineno + 1))
    return len(lines)


def test_help_shows_their_keys(project):
    text = run(project, "scripts/train.py", "--help", *CHOSEN).stdout
    for key, help_text in (
        ("scheduler.power=3.0", "Exponent of the polynomial."),
        ("model.width=8", "Channels of all blocks."),
        ("loss.margin=0.5", "Distance between the right and any other class."),
        ("optimizer.lr=0.004", "Peak learning rate."),
    ):
        (line,) = [line for line in text.splitlines() if line.strip().startswith(f"{key} ")]
        assert help_text in line


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("scheduler.power=0", "scheduler.power must be a number above 0, not 0"),
        ("scheduler.powr=1", "Unknown key 'scheduler.powr'. Did you mean scheduler.power?"),
        ("model.width=wide", "model.width must be an integer of at least 1, not 'wide'"),
        ("loss.margin=-1", "loss.margin must be a number above 0, not -1"),
        ("model=convnext", "Did you mean convnext_"),
        ("framework=paddle", "model=convnext_like exists for lightning only"),
    ],
)
def test_mistakes_in_them_are_one_sentence(project, argument, message):
    done = run(project, "scripts/train.py", *CHOSEN, argument)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def build(num_classes=10, width=8):\n    return None\n", "line 1: keys are the arguments after `*`: write"),
        ("\ndef build(*, classes:\n    return None\n", "line 2: '(' was never closed."),
    ],
)
def test_a_source_that_cannot_be_read_is_one_sentence(project, source, message):
    path = project / "src/models/lightning/same.py"
    path.write_text(source, "utf-8")
    done = run(project, "scripts/train.py", "model=same")
    path.write_text(SAME_NETWORK, "utf-8")
    assert done.returncode == 2
    assert f"error: src/models/lightning/same.py, {message}" in done.stderr


def test_a_misspelt_key_in_the_yaml_names_file_and_line(project):
    path = project / "src/configs/scheduler/steep.yaml"
    path.write_text("file: polynomial\nexponent: 4\n", "utf-8")
    done = run(project, "scripts/train.py", "scheduler=steep")
    path.unlink()
    assert done.returncode == 2
    assert "src/configs/scheduler/steep.yaml, line 2" in done.stderr

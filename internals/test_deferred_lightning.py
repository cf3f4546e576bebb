"""What Lightning's import leaves out until it is needed is whole from then on, in any order."""

import subprocess
import sys

import pytest

from paths import TEMPLATE

START = """
import pickle, sys
import src.kit.lightning, torch, pytorch_lightning as pl
@torch.compiler.disable
def alone(): return torch.compiler.is_compiling()
from lightning_fabric.wrappers import OptimizedModule as Known
assert not {"torch._dynamo.utils", "torchmetrics.functional", "torchvision", "scipy"} & set(sys.modules)
layer = torch.nn.Linear(2, 2)
optimizer = torch.optim.AdamW(layer.parameters())
layer(torch.ones(1, 2)).sum().backward()
optimizer.step()
assert not isinstance(layer, Known) and "torch._dynamo.utils" not in sys.modules
"""
COMPILER = """
compiled = torch.compile(layer, backend="eager")
both = torch.compile(lambda x: (x + 1, torch.compiler.is_compiling(), alone()), backend="eager")
assert both(torch.ones(2))[1:] == (True, False)
assert isinstance(compiled, Known) and torch.equal(compiled(torch.ones(1, 2)), layer(torch.ones(1, 2)))
module = sys.modules["torch._dynamo.{name}"]
assert module is torch._dynamo.{name} and type(torch._dynamo) is type(sys)
assert vars(module)["__spec__"].loader.path.endswith(".py")
optimizer.step()
"""
METRICS = """
import torchmetrics
from torchmetrics.classification import MulticlassAccuracy
class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.accuracy = MulticlassAccuracy(3)
assert isinstance(Module().accuracy, torchmetrics.Metric)
accuracy = pickle.loads(pickle.dumps(torchmetrics.Accuracy(task="multiclass", num_classes=3)))
assert accuracy(torch.eye(3), torch.arange(3)) == 1 and isinstance(accuracy, torchmetrics.Metric)
assert type(torchmetrics) is type(sys) and "MeanMetric" in torchmetrics.__all__
"""


COLLECTION = """
import gc
from src.kit.config import load_config
from src.kit.training import load_trainer
cfg, scans = load_config(["framework=lightning"]), []
gc.collect()
gc.callbacks.append(lambda phase, info: scans.append(info["generation"]))
load_trainer(cfg)
assert 2 not in scans and gc.isenabled() and gc.get_freeze_count() > 100_000
"""


@pytest.mark.parametrize("name", ["utils", "config"])  # modules inside a package import each other in its order only
def test_the_compiler_is_whole_whatever_of_it_is_imported_first(name):
    run(f"{START}\nimport torch._dynamo.{name}\n{COMPILER.format(name=name)}")


def test_metrics_and_decorators_are_those_of_the_packages():
    run(START + METRICS)


def test_imports_are_not_scanned_for_garbage_and_what_follows_is():
    run(COLLECTION)


def run(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], cwd=TEMPLATE, check=True)

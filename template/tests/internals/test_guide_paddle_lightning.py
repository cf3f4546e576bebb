"""The network of the guide's example works as it is printed."""

import re
from pathlib import Path
from types import SimpleNamespace

import paddle
import pytest
import torch
from jinja2 import Environment
from omegaconf import OmegaConf

GUIDE = Path(__file__).parents[2] / "docs" / "guide.md.jinja"
ANSWERS = {"backends": ["lightning", "paddle"], "framework": "both", "tracker": "none"}


@pytest.mark.parametrize(("framework", "zeros"), [("lightning", torch.zeros), ("paddle", paddle.zeros)])
def test_the_model_of_the_guide(framework, zeros):
    text = Environment().from_string(GUIDE.read_text("utf-8")).render(ANSWERS)
    (code,) = re.findall(rf"```python\n# src/models/{framework}/linear\.py\n(.+?)```", text, re.DOTALL)
    module = SimpleNamespace()
    exec(code, module.__dict__)
    (config,) = re.findall(r"```yaml\n(name: linear.+?)```", text, re.DOTALL)
    own = {key: value for key, value in OmegaConf.create(config).items() if key == "dropout"}
    network = module.linear(num_classes=3, in_channels=2, image_size=8, **own)
    assert tuple(network(zeros([4, 2, 8, 8])).shape) == (4, 3)

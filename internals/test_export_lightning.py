"""Exported networks compute what PyTorch computes, for any batch."""

import onnxruntime
import pytest
import torch
from torch import nn

from exporting import NETWORKS, Exported, agree, build, inputs, liven
from src.kit.errors import UserError
from src.kit.lightning import weights_from_numpy, weights_to_numpy
from src.kit.training.exports import export_network


# `nox -s bench -- export` tries all networks; test_export_paddle_lightning_parity.py has DeepLab
@pytest.mark.parametrize("name", sorted(NETWORKS.keys() - {"efficientnet", "vit", "deeplab_mobilenet_v2"}))
def test_onnx_gives_the_networks_outputs(name, tmp_path):
    network = build("lightning", name)
    weights_from_numpy(network, liven(weights_to_numpy(network)))
    exported = Exported("lightning", network, name, tmp_path)
    for batch in (1, 2, 5):
        images = inputs(name, batch)
        with torch.no_grad():
            agree(exported(images), network(torch.tensor(images)).numpy(), name)


def test_a_program_runs_without_the_projects_code(tmp_path):
    network = build("lightning", "small_cnn")
    export_network(network, "lightning", (1, 28, 28), tmp_path, ("torch", "onnx"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.pt2"]
    size = sum(value.nbytes for value in weights_to_numpy(network).values())
    assert (tmp_path / "model.onnx").stat().st_size < 1.1 * size, "no notes of the exporter"
    [given] = onnxruntime.InferenceSession(tmp_path / "model.onnx").get_inputs()
    assert (given.name, given.shape) == ("input", ["batch", 1, 28, 28])
    program = torch.export.load(tmp_path / "model.pt2").module()
    images = torch.tensor(inputs("small_cnn", 3))
    with torch.no_grad():
        assert torch.equal(program(images), network(images))


class Choosy(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images if images.sum() > 0 else -images


def test_a_network_that_chooses_by_values_is_refused(tmp_path):
    with pytest.raises(
        UserError, match=r"PyTorch cannot export Choosy \(.+\): its forward must not choose by values\."
    ):
        export_network(Choosy(), "lightning", (1, 4, 4), tmp_path)
    assert not list(tmp_path.iterdir())

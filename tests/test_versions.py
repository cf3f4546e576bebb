"""versions.yml: each fact says where it was read, no pin is a known-bad release, only what exists can be answered."""

import copy
import re
from pathlib import Path

import pytest
import yaml
from jinja2 import Environment, FileSystemLoader
from packaging.requirements import Requirement
from packaging.version import Version

from tests import freshness
from tests.render import ROOT, render

VERSIONS = yaml.safe_load((ROOT / "versions.yml").read_text("utf-8"))
BUILDS = [(backend, build) for backend, builds in VERSIONS["builds"].items() for build in builds]
CUDA = [(backend, build) for backend, build in BUILDS if build != "cpu"]
PINS = {Requirement(line).name: Requirement(line) for line in freshness.pins(VERSIONS)}


@pytest.mark.parametrize(("backend", "build"), BUILDS)
def test_every_fact_says_where_it_was_read(backend: str, build: str) -> None:
    entry = VERSIONS["builds"][backend][build]
    assert entry["status"] in ("stable", "experimental")
    facts = set(entry) - {"read", "status"}
    assert facts <= set(entry["read"]), facts
    assert all(re.fullmatch(r"seen|https://\S+", source) for source in entry["read"].values())


@pytest.mark.parametrize(("backend", "build"), CUDA)
def test_addresses_and_images_are_of_this_build_and_pin(backend: str, build: str) -> None:
    entry, tag = VERSIONS["builds"][backend][build], f"cu{build.replace('.', '')}"
    version = str(PINS[freshness.PACKAGE[backend]].specifier).removeprefix("==")
    assert entry["index"].rstrip("/").endswith(f"/{tag}")
    assert entry.get("find_links", tag).rstrip("/").endswith(tag)
    for image in (entry["image"], entry.get("mirror_image", entry["image"])):
        assert re.search(rf":{re.escape(version)}-\S*cuda{re.escape(build)}-", image), image
    assert build in VERSIONS["cuda"]
    assert VERSIONS["drivers"][build]


def test_cuda_versions_are_the_newest_first_and_all_used() -> None:
    assert sorted(VERSIONS["cuda"], key=Version, reverse=True) == VERSIONS["cuda"]
    assert {build for _, build in CUDA} == set(VERSIONS["cuda"])
    drivers = [Version(VERSIONS["drivers"][cuda]) for cuda in VERSIONS["cuda"]]
    assert sorted(drivers, reverse=True) == drivers


def test_pins_avoid_known_bad_releases() -> None:
    assert freshness.known_bad(VERSIONS) == []
    assert "lightning" not in PINS, "the package is pytorch-lightning"


@pytest.mark.parametrize(
    "pin", ["lightning==2.6.2", "pytorch-lightning==2.6.3", "torch==2.9.1", "albumentations==2.0.9"]
)
def test_a_known_bad_pin_is_found(pin: str) -> None:
    changed = copy.deepcopy(VERSIONS)
    changed["packages"]["common"].append(pin)
    [row] = freshness.known_bad(changed)
    assert (row.what, row.state) == (pin, "FAILED")


@pytest.mark.parametrize(("backend", "build"), CUDA)
def test_every_build_can_be_answered_and_has_its_index(backend: str, build: str, tmp_path: Path) -> None:
    render(tmp_path, {"framework": backend, "gpu": build, "package_index": "official"})
    text = (tmp_path / "requirements-gpu.txt").read_text("utf-8")
    assert f"CUDA {build} (cu{build.replace('.', '')})" in text.splitlines()[0]
    options = [line for line in text.splitlines() if line.startswith("--")]
    assert options == [f"--extra-index-url {VERSIONS['builds'][backend][build]['index']}"]


def test_both_have_an_environment_each_on_a_gpu(tmp_path: Path) -> None:
    """Their GPU builds pin different versions of NVIDIA's libraries."""
    render(tmp_path, {"framework": "both", "gpu": "12.6"})
    torch = (tmp_path / "requirements-gpu.txt").read_text("utf-8")
    paddle = (tmp_path / "requirements-gpu-paddle.txt").read_text("utf-8")
    assert "\ntorch==" in torch and "\npaddlepaddle" not in torch
    assert "\npaddlepaddle-gpu==" in paddle and "\ntorch" not in paddle
    assert "/cu126" in torch and "/cu126/" in paddle


def test_paddle_needs_no_mirror_in_china(tmp_path: Path) -> None:
    render(tmp_path, {"framework": "paddle", "gpu": "12.6", "package_index": "china"})
    text = (tmp_path / "requirements-gpu.txt").read_text("utf-8")
    assert f"--index-url {VERSIONS['china']}\n--extra-index-url https://www.paddlepaddle.org.cn/" in text


@pytest.mark.parametrize(
    ("data", "recorded", "sentence"),
    [
        ({"framework": "both"}, {"framework": "lightning", "gpu": "13.2"}, "gpu: choose 13.0, 12.6 or none: the two"),
        ({"gpu": "12.9"}, {"framework": "lightning", "gpu": "12.6"}, "gpu: choose 13.2, 13.0, 12.6 or none: PyTorch"),
        ({"gpu": "12.9"}, {"framework": "paddle", "gpu": "12.6"}, ""),
        ({}, {"framework": "paddle", "gpu": "11.8"}, ""),
    ],
)
def test_an_update_cannot_answer_it_either(data: dict[str, str], recorded: dict[str, str], sentence: str) -> None:
    environment = Environment(
        loader=FileSystemLoader(ROOT), extensions=["jinja2_ansible_filters.AnsibleCoreFiltersExtension"]
    )
    macros = environment.get_template("questions/validators.jinja").module
    conf = {"data": data, "defaults": True}
    assert macros.first_problem(conf, True).strip() == ""
    said = " ".join(macros.recorded_problem(conf, recorded).split())
    assert said.startswith(sentence) if sentence else not said

"""What is recommended for which machine: the borders of the tiers, above all."""

import pytest

from src.kit.config import load_config
from src.kit.hardware import diagnosis
from src.kit.hardware.diagnosis import recommend
from src.kit.hardware.hardware import Gpu, Hardware

PROCESSOR = Hardware((), None, None, (), "Linux x86_64", "CPU", 16, (), 65536, 50_000)


def machine(*memory: int, vendor="nvidia", capability="8.6", cores=16, cuda="12.8", ram=65536) -> Hardware:
    gpus = tuple(Gpu(vendor, "GPU", mib, capability) for mib in memory)
    return Hardware(gpus, "570.1" if gpus else None, cuda, (), "Linux x86_64", "CPU", cores, (), ram, 50_000)


def advice(hardware: Hardware, cuda: str | None = None) -> dict[str, str | int]:
    return {item.name: item.value for item in recommend(hardware, cuda)}


@pytest.mark.parametrize(
    ("memory", "tier"),
    [
        ([], "debug"),
        ([0], "debug"),
        ([4096], "debug"),
        ([6144], "debug"),
        ([7577], "debug"),
        ([7611], "production-conservative"),  # Tesla P4, sold as 8 GB
        ([8188], "production-conservative"),  # RTX 4060, sold as 8 GB
        ([8192], "production-conservative"),  # exactly 8 GB
        ([12288], "production-conservative"),
        ([15360], "production-conservative"),  # T4, sold as 16 GB
        ([16376], "production-conservative"),  # RTX 4080, sold as 16 GB
        ([16384], "production-conservative"),  # exactly 16 GB
        ([16385], "production-full"),
        ([19968], "production-full"),  # a MIG instance of 20 GB
        ([24564], "production-full"),
        ([24576, 8192], "production-conservative"),
        ([81559] * 8, "production-full"),
        ([81559, 4864], "debug"),
    ],
)
def test_data_set_tier(memory, tier):
    assert advice(machine(*memory))["dataset_tier"] == tier


@pytest.mark.parametrize(
    ("vendor", "capabilities", "precision"),
    [
        ("nvidia", ["9.0"], "bf16-mixed"),
        ("nvidia", ["10.0"], "bf16-mixed"),
        ("nvidia", ["8.0"], "bf16-mixed"),
        ("nvidia", ["7.5"], "16-mixed"),
        ("nvidia", ["7.0"], "16-mixed"),
        ("nvidia", ["6.1"], "32-true"),
        ("nvidia", [None], "32-true"),
        ("nvidia", ["8.6", "7.5"], "16-mixed"),
        ("amd", ["gfx90a"], "bf16-mixed"),
        ("amd", ["gfx942"], "bf16-mixed"),
        ("amd", ["gfx1100"], "bf16-mixed"),
        ("amd", ["gfx1030"], "16-mixed"),
        ("amd", [None], "32-true"),
        ("apple", [None], "32-true"),
        ("nvidia", [], "32-true"),
    ],
)
def test_precision(vendor, capabilities, precision):
    gpus = tuple(Gpu(vendor, "GPU", 24576, capability) for capability in capabilities)
    hardware = Hardware(gpus, None, None, (), "Linux x86_64", "CPU", 8, (), 32768, 50_000)
    assert advice(hardware)["trainer.precision"] == precision


@pytest.mark.parametrize(
    ("highest", "file_cuda", "requirements"),
    [
        ("12.8", "12.6", "requirements-gpu.txt"),
        ("12.2", "12.6", "requirements-gpu.txt"),  # the same major version: CUDA's minor-version compatibility
        ("13.0", "12.6", "requirements-gpu.txt"),
        ("12.8", "13.0", "requirements-cpu.txt"),
        ("11.4", "12.6", "requirements-cpu.txt"),
        (None, "12.6", "requirements-gpu.txt"),
        ("12.8", None, "requirements-gpu.txt"),
    ],
)
def test_requirements_follow_the_driver(highest, file_cuda, requirements):
    assert advice(machine(24564, cuda=highest), file_cuda)["requirements"] == requirements


@pytest.mark.parametrize("vendor", ["amd", "apple"])
def test_cuda_requirements_are_for_nvidia_only(vendor):
    assert advice(machine(24564, vendor=vendor), "12.6")["requirements"] == "requirements-cpu.txt"


def test_batch_sizes_grow_with_memory():
    sizes = [advice(machine(memory))["data.batch_size"] for memory in (4096, 8192, 16384, 24564, 40960, 81559)]
    assert sizes == [32, 64, 64, 128, 256, 256]
    assert advice(PROCESSOR)["data.batch_size"] == 32
    assert advice(machine(ram=2048))["data.batch_size"] == 16


@pytest.mark.parametrize(
    ("gpus", "cores", "workers"),
    [(0, 1, 1), (0, 2, 1), (0, 64, 4), (1, 1, 1), (1, 4, 4), (1, 64, 8), (8, 16, 2), (8, 4, 1)],
)
def test_workers(gpus, cores, workers):
    assert advice(machine(*[24564] * gpus, cores=cores))["data.num_workers"] == workers


def test_every_recommendation_has_a_reason_with_the_number_that_decided():
    reasons = {item.name: item.reason for item in recommend(machine(24564, 12282), "12.6")}
    assert all(reasons.values())
    assert "12.0 GiB" in reasons["dataset_tier"]
    assert "12.8" in reasons["requirements"]
    assert "8.6" in reasons["trainer.precision"]
    assert "16 cores for 2 GPUs" in reasons["data.num_workers"]


@pytest.mark.parametrize(
    ("capabilities", "build", "accelerator", "resolved"),
    [
        (["9.0"], "13.0", "auto", "bf16-mixed"),
        (["9.0", "7.5"], "13.0", "gpu", "32-true"),  # fp16 is never chosen
        (["9.0"], "13.0", "cpu", "32-true"),
        (["9.0"], "", "auto", "32-true"),  # a CPU build
        ([], "13.0", "auto", "32-true"),
    ],
)
def test_precision_is_chosen_by_the_gpus_when_the_configuration_is_read(
    capabilities, build, accelerator, resolved, monkeypatch
):
    gpus = tuple(Gpu("nvidia", "GPU", 24576, capability) for capability in capabilities)
    machine = Hardware(gpus, None, None, (), "Linux x86_64", "CPU", 8, (), 32768, 50_000)
    monkeypatch.setattr(diagnosis, "detect", lambda: machine)
    monkeypatch.setattr(diagnosis, "cuda_build", {"torch": build, "paddle": build}.get)
    words = [f"trainer.accelerator={accelerator}"]
    assert load_config(["framework=lightning", *words]).trainer.precision == resolved
    assert load_config(["framework=lightning", "task=tabular", *words]).trainer.precision == "32-true"
    assert load_config(["framework=paddle", *words]).trainer.precision == "32-true", "bf16 in Paddle on request only"

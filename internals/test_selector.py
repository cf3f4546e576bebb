"""The data set and the keys that a machine gets, exactly at the borders of the tiers."""

import re
from typing import Any

import pytest

from paths import TEMPLATE
from src.kit.catalog.specs import STAGES, auto_select_dataset, dataset_specs, tiers
from src.kit.config.compose import load_config, option_names
from src.kit.errors import UserError
from src.kit.hardware.diagnosis import EIGHT_GB_MIB, SIXTEEN_GB_MIB
from src.kit.hardware.hardware import Gpu, Hardware

TASKS = option_names("task")


def machine(*memory: int) -> Hardware:
    gpus = tuple(Gpu("nvidia", f"GPU of {mib} MiB", mib, "8.0") for mib in memory)
    return Hardware(gpus, None, None, (), "Linux x86_64", "CPU", 8, (), 32768, 50_000)


@pytest.mark.parametrize(
    ("memory", "tier"),
    [
        ([], "debug"),
        ([0], "debug"),  # unknown
        ([EIGHT_GB_MIB - 1], "debug"),
        ([EIGHT_GB_MIB], "production-conservative"),
        ([8192], "production-conservative"),
        ([SIXTEEN_GB_MIB], "production-conservative"),
        ([SIXTEEN_GB_MIB + 1], "production-full"),
        ([81559], "production-full"),
        ([81559, SIXTEEN_GB_MIB], "production-conservative"),
        ([81559, 24564, EIGHT_GB_MIB - 1], "debug"),
    ],
)
def test_the_smallest_gpu_decides(memory, tier):
    selection = auto_select_dataset(hardware=machine(*memory))
    assert selection.tier == tier
    assert selection.reason
    assert selection.memory_mib <= 1000 or tier != "debug"
    assert selection.dataset == ("digits" if tier == "debug" else "cifar10")


@pytest.mark.parametrize(
    ("stage", "memory", "tier"),
    [
        ("debug", [], "debug"),
        ("debug", [81559], "debug"),
        ("production", [], "production-conservative"),
        ("production", [8192], "production-conservative"),
        ("production", [24564], "production-full"),
    ],
)
def test_a_stage_that_is_asked_for(stage, memory, tier):
    selection = auto_select_dataset(hardware=machine(*memory), stage=stage)
    assert selection.tier == tier
    assert ("you asked for" in selection.reason) == (tier != auto_select_dataset(hardware=machine(*memory)).tier)


def test_this_machine_is_looked_at():
    assert auto_select_dataset().tier in tiers()


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("task", "dataset"),
    [(task, name) for task, choice in tiers()["debug"]["tasks"].items() for name in choice["datasets"]],
)
def test_every_selection_is_a_sound_configuration(stage, task, dataset):
    selection = auto_select_dataset(task, machine(24564), stage, dataset)
    cfg = load_config([f"task={task}", *selection.arguments])
    assert (cfg.task, cfg.data.name) == (task, dataset)
    assert cfg.data.batch_size == selection.overrides["data.batch_size"]
    kind = {"tabular": "classes", "tabular_regression": "number"}.get(task)
    assert kind is None or cfg.data.target.kind == kind, "the printed line trains without another key"


def test_every_task_has_data_in_every_tier():
    assert all(tier["tasks"].keys() == set(TASKS) for tier in tiers().values())
    chosen = {task: auto_select_dataset(task, machine()).dataset for task in TASKS}
    scenes = dict.fromkeys(("detection", "segmentation", "instance_segmentation"), "digit_scenes")
    tables = {"tabular": "breast_cancer", "tabular_regression": "housing"}
    assert chosen == {"classification": "digits", **scenes, **tables}
    assert auto_select_dataset("tabular", machine(24564)).dataset == "table_file"


def test_every_data_set_is_listed_for_each_of_its_tasks():
    for task in TASKS:
        listed = {name for tier in tiers().values() for name in tier["tasks"][task]["datasets"]}
        assert listed == {each.name for each in dataset_specs().values() if task in each.tasks}


@pytest.mark.parametrize("tier", ["debug", "production-conservative", "production-full"])
def test_every_listed_data_set_exists(tier):
    for task, choice in tiers()[tier]["tasks"].items():
        assert choice["default"] in choice["datasets"]
        for name in choice["datasets"]:
            assert name in option_names("data")
            assert auto_select_dataset(task, machine(24564), dataset=name).dataset == name


def test_batches_grow_with_the_tier():
    sizes = [
        [tiers()[tier]["tasks"]["classification"]["datasets"][name]["data.batch_size"] for tier in tiers()]
        for name in ("mnist", "cifar10", "imagenet", "image_folder")
    ]
    assert all(row == sorted(row) for row in sizes)


def test_a_data_set_of_ones_own_gets_the_keys_for_all():
    selection = auto_select_dataset(hardware=machine(), dataset="mine")
    assert selection.overrides == tiers()["debug"]["overrides"]


def test_the_public_module_works_as_its_docstring_and_the_guide_print_it(capsys):
    from src.utils import dataset_selector

    line = "from src.utils.dataset_selector import auto_select_dataset"
    assert line in (TEMPLATE / "docs" / "data.md").read_text("utf-8")
    code = [row[4:] for row in dataset_selector.__doc__.splitlines() if row.startswith("    ")]
    assert code[0] == line
    names: dict[str, Any] = {}
    exec("\n".join(code), names)
    selection = names["selection"]
    assert isinstance(selection, dataset_selector.Selection)
    assert selection == auto_select_dataset("classification")
    assert capsys.readouterr().out == f"{selection.tier} {selection.reason}\n{selection.arguments}\n"


def test_the_tables_of_a_plain_project_name_no_other_task():
    other = re.compile("coco|yolo|scene|detection|segmentation|tabular|table_file|wine|housing|breast", re.IGNORECASE)
    for path in (TEMPLATE / "src" / "configs" / "data").glob("*_*.yaml"):
        assert not other.search(path.read_text("utf-8")), path


def test_mistakes_are_named():
    with pytest.raises(UserError, match=r"Unknown stage 'prod'\."):
        auto_select_dataset(stage="prod")
    with pytest.raises(UserError, match=r"Unknown task 'classifcation'. Did you mean classification\?"):
        auto_select_dataset("classifcation")
    with pytest.raises(UserError, match="coco128 is for detection, not for classification"):
        auto_select_dataset(dataset="coco128")

"""The checks of a pipeline: their rows, limits and exit codes; the scripts themselves run with each framework."""

import subprocess
import sys
import time

import pytest
from omegaconf import DictConfig

from paths import TEMPLATE
from scripts.quick_validate import main
from src.kit.benchmarks.pipeline import Report, check_pipeline, choose_task, print_report
from src.kit.catalog import Selection
from src.kit.config.compose import load_config
from src.kit.errors import UserError
from src.kit.hardware.probe import peak_mib

CFG = load_config(["data=digits"])


def selection(memory_mib: int = 100_000, minutes: float = 5) -> Selection:
    return Selection("debug", "classification", "digits", {}, memory_mib, minutes, "")  # type: ignore[arg-type]


def fine(cfg: DictConfig) -> str:
    print("training prints things")
    return f"saw {cfg.data.name}"


def slow(cfg: DictConfig) -> str:
    time.sleep(0.05)
    return ""


def mistaken(cfg: DictConfig) -> str:
    raise UserError("The data set lacks a class.")


def broken(cfg: DictConfig) -> str:
    raise ZeroDivisionError("division [by] zero")


def rows(report: Report) -> list[tuple[str, str]]:
    return [(each.step, each.status) for each in report.steps]


def test_every_step_is_timed_and_said(capsys):
    report = check_pipeline(CFG, selection(), {"fine": fine, "slow": slow})
    assert rows(report) == [("fine", "ok"), ("slow", "ok"), ("limits", "ok")]
    assert report.passed
    assert report.steps[0].detail == "saw digits"
    assert 0.05 <= report.steps[1].seconds <= report.steps[2].seconds
    assert 10 < report.steps[0].peak_mib <= report.steps[2].peak_mib
    out, err = capsys.readouterr()
    assert (out, err) == ("", "fine ...\ntraining prints things\nslow ...\n")


@pytest.mark.parametrize(
    ("step", "detail"),
    [(mistaken, "The data set lacks a class."), (broken, "ZeroDivisionError: division [by] zero")],
)
def test_after_a_step_that_fails_the_rest_is_skipped(step, detail, capsys):
    report = check_pipeline(CFG, selection(), {"fine": fine, "step": step, "last": fine})
    assert rows(report) == [("fine", "ok"), ("step", "fail"), ("last", "skipped"), ("limits", "ok")]
    assert not report.passed
    assert report.steps[1].detail == detail
    print_report(report)
    assert detail in " ".join(capsys.readouterr().out.split())
    assert report.to_dict()["passed"] is False


def test_a_long_address_keeps_its_end(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    address = f"https://example.org/{'long/' * 10}cifar-10-binary.tar.gz"

    def missing(cfg: DictConfig) -> str:
        raise UserError(f"The mirror has no file: copy it there from {address}, or unset it.")

    print_report(check_pipeline(CFG, selection(), {"data": missing}))
    assert address in "".join(line[37:].strip() for line in capsys.readouterr().out.splitlines())


@pytest.mark.parametrize("limits", [{"memory_mib": 5}, {"minutes": 0}])
def test_a_limit_that_is_passed_fails(limits):
    report = check_pipeline(CFG, selection(**limits), {"slow": slow})
    assert rows(report) == [("slow", "ok"), ("limits", "fail")]
    assert not report.passed


def test_the_peak_is_what_was_really_used():
    held = "x = b'x' * (300 << 20); del x"
    command = f"from src.kit.hardware.probe import peak_mib; a = peak_mib(); {held}; print(peak_mib() - a)"
    grown = int(subprocess.run([sys.executable, "-c", command], cwd=TEMPLATE, capture_output=True, check=True).stdout)
    assert 280 <= grown <= 320
    assert peak_mib() > 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data=mnits"], "Unknown data 'mnits'. Did you mean mnist"),
        (["data=mnist", "--dataset", "digits"], "--dataset digits and data=mnist both name the data set"),
        (["--fast"], "Cannot read '--fast'"),
        (["--dataset", "mnits"], "Unknown data 'mnits'. Did you mean mnist"),
        (["--dataset", "coco128", "task=classification"], "coco128 is for detection, not for classification"),
        (["trainer.epoks=1"], "Unknown key 'trainer.epoks'"),
    ],
)
def test_mistakes_of_the_command_line(arguments, message):
    with pytest.raises(UserError) as error:
        main(arguments)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("dataset", "overrides", "expected"),
    [
        ("coco128", [], ["task=detection"]),
        ("coco2017", ["trainer.max_epochs=2"], ["task=detection"]),
        ("coco2017", ["task=segmentation"], []),
        ("mnist", [], []),
        (None, [], []),
    ],
)
def test_a_data_set_brings_its_task(dataset, overrides, expected):
    assert choose_task(dataset, overrides) == expected

"""The report is one safe file, whatever the run folder holds."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from src.kit.report import (
    collect_folds,
    draw_confusion,
    draw_curves,
    duration,
    reports,
    write_fold_report,
    write_report,
)
from src.kit.run import write_json
from src.tasks import classification

EVIL = '</script></pre><img src=x onerror="alert(1)">'


def test_the_spread_of_folds_is_that_of_a_sample(tmp_path):
    for number, accuracy in enumerate((0.5, 0.7, 0.9), 1):
        (tmp_path / str(number)).mkdir()
        for split in ("val", "test"):
            write_json(tmp_path / str(number) / f"evaluation-{split}.json", {"accuracy": accuracy, "samples": 9})
    score = collect_folds([tmp_path / str(number) for number in (1, 2, 3)])["scores"]["test"]["accuracy"]
    assert (score["mean"], score["std"]) == (pytest.approx(0.7), pytest.approx(0.2)), "k - 1 in the denominator"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "outputs" / "cnn-digits-20260101-120000"
    (folder / "pictures").mkdir(parents=True)
    losses = [2.0, 1.1, 0.8]
    rows = [
        {"epoch": number, "lr": 0.1, "train/loss": loss, "val/loss": loss, "val/accuracy": 0.5}
        for number, loss in enumerate(losses, 1)
    ]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)) + '\n{"epoch": 4, "tr', encoding="utf-8")
    draw_curves(rows, folder / "pictures")
    classes, targets = ["cat", "dog", EVIL], np.array([0, 1, 2, 2])
    evaluation = classification.Task().evaluate([(np.eye(3)[[0, 1, 1, 2]], targets)], classes)
    (folder / "evaluation-test.json").write_text(json.dumps(evaluation), encoding="utf-8")
    draw_confusion(np.array(evaluation["confusion_matrix"]), classes, folder / "pictures" / "test-confusion.png")
    info = {"framework": "lightning", "status": "finished", "duration_s": 65, "parameters": 12345, "gpu": None}
    info |= {"command": ["python", "scripts/train.py", f"name={EVIL}"], "versions": {"python": "3.11"}}
    (folder / "run.json").write_text(json.dumps(info), encoding="utf-8")
    (folder / "config.yaml").write_text(f"name: '{EVIL}'\nmodel:\n  name: small_cnn\n", encoding="utf-8")
    return folder


def test_report_is_one_file_with_every_section(run: Path) -> None:
    path = write_report(run)
    page = path.read_text(encoding="utf-8")
    assert path == run / "report.html"
    for part in (
        "75.00%",
        "1 min 05 s",
        "12,345",
        "Still learning",
        "Most often confused",
        "versions.python",
        "small_cnn",
    ):
        assert part in page, part
    assert f"python scripts/train.py --from {run.resolve().as_posix()}" in page
    assert page.count("data:image/png;base64,") == 4
    assert not re.search(r'(src|href)="(?!data:)', page), "a report must not load anything"
    assert not re.search(r"\$[a-z{]", page), "a placeholder is left"
    assert not list(run.glob(".*")), "a partial file is left"


def test_a_long_figure_widens_its_card_and_stays_in_one_line(run: Path) -> None:
    page = write_report(run).read_text(encoding="utf-8")
    assert re.search(r"\.cards \{ display: flex; flex-wrap: wrap;", page), "columns of one width cut long figures off"
    assert re.search(r"\.card b \{[^}]*white-space: nowrap", page)
    assert re.search(r"\.card \{ flex: 1 0 auto;", page), "a card must not be narrower than its figure"


def test_a_table_of_numbers_is_shown_whole(run: Path) -> None:
    (run / "evaluation-test.json").write_text(json.dumps({"map50": 0.5, "note": "long " * 40}), encoding="utf-8")
    page = write_report(run).read_text(encoding="utf-8")
    assert re.findall(r'<div class="([^"]*)"><table class="pairs">', page) == ["scroll whole"] * 2
    assert re.search(r"\.scroll\.whole \{ max-height: none; \}", page), "the last rows, the note's too, are cut off"


def test_rates_times_and_losses_are_no_shares_of_one(run: Path) -> None:
    row = {"epoch": 1, "lr": 4.5e-06, "train/loss": 0.5, "val/accuracy": 0.75, "epoch_s": 0.25}
    (run / "metrics.jsonl").write_text(json.dumps(row), encoding="utf-8")
    page = write_report(run).read_text(encoding="utf-8")
    epochs = page[page.index("All epochs") : page.index("Test split")]
    assert re.findall(r'<td class="([^"]*)"[^>]*>([^<]*)', epochs) == [
        *(("number", text) for text in ("1", "4.5e-06", "0.5000")),
        *(("number bar", "0.7500"), ("number", "0.2500")),
    ]


def test_strings_from_outside_are_escaped(run: Path) -> None:
    page = write_report(run).read_text(encoding="utf-8")
    assert "<img src=x" not in page
    assert "<script" not in page
    assert page.count("&lt;img src=x onerror=&quot;alert(1)&quot;&gt;") >= 4  # config, command, class table, confusions


def test_a_folder_name_cannot_inject_html(run: Path) -> None:
    renamed = run.rename(run.with_name("<b onclick=x>&"))
    page = write_report(renamed).read_text(encoding="utf-8")
    assert "<b onclick" not in page
    assert "&lt;b onclick=x&gt;&amp;" in page


def test_a_run_inside_the_project_is_repeated_by_its_short_path(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "ROOT", run.parents[1].resolve())
    page = write_report(run).read_text(encoding="utf-8")
    assert ">python scripts/train.py --from outputs/cnn-digits-20260101-120000<" in page


def test_validation_is_the_headline_before_the_test(run: Path) -> None:
    (run / "evaluation-test.json").rename(run / "evaluation-val.json")
    page = write_report(run).read_text(encoding="utf-8")
    assert "val accuracy" in page
    assert "test accuracy" not in page


def test_last_epoch_is_the_headline_before_any_evaluation(run: Path) -> None:
    (run / "evaluation-test.json").unlink()
    assert "val accuracy, last epoch" in write_report(run).read_text(encoding="utf-8")


def test_predicted_numbers_have_headlines_that_are_no_shares(run: Path) -> None:
    drawn = run / "pictures" / "test-predictions.png"
    (run / "pictures" / "test-confusion.png").rename(drawn)
    (run / "evaluation-test.json").write_text(json.dumps({"rmse": 12.3456, "mae": 9.5, "r2": -0.25}), encoding="utf-8")
    page = write_report(run).read_text(encoding="utf-8")
    assert "<b>12.35</b><span>test rmse</span>" in page
    assert "<b>-0.25</b><span>test r2</span>" in page
    section = page[page.index("Test split") : page.index("Configuration")]
    assert 'alt="test predictions"' in section
    assert "More pictures" not in page


def test_scores_without_anything_to_score_are_dashes(run: Path) -> None:
    rows = [{"class": "never", "map": None, "objects": 0}, {"class": "cat", "map": 0.5, "objects": 7}]
    evaluation = {"map50": 0.5, "map": 0.25, "map_large": None, "per_class": rows}
    (run / "evaluation-test.json").write_text(json.dumps(evaluation), encoding="utf-8")
    page = write_report(run).read_text(encoding="utf-8")
    assert "<td>map_large</td><td>-</td>" in page
    assert '<td class="number">-</td>' in page


@pytest.mark.parametrize("missing", ["run.json", "metrics.jsonl", "config.yaml", "pictures/loss.png"])
def test_missing_parts_are_left_out(run: Path, missing: str) -> None:
    (run / missing).unlink()
    assert "Repeat this run" in write_report(run).read_text(encoding="utf-8")


def test_report_of_an_empty_folder(tmp_path: Path) -> None:
    assert "Repeat this run" in write_report(tmp_path).read_text(encoding="utf-8")


@pytest.mark.parametrize(("seconds", "words"), [(8.26, "8.3 s"), (65, "1 min 05 s"), (11520, "3 h 12 min")])
def test_duration_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_folds_are_compared_by_the_scores_that_all_have(tmp_path):
    for name, large in (("fold-1", 0.5), ("fold-2", None)):
        (tmp_path / name).mkdir()
        for split in ("val", "test"):
            write_json(tmp_path / name / f"evaluation-{split}.json", {"map": 0.5, "map_large": large, "samples": 3})
    result = collect_folds([tmp_path / "fold-1", tmp_path / "fold-2"])
    assert {split: [*scores] for split, scores in result["scores"].items()} == {"test": ["map"], "val": ["map"]}


def test_folds_of_numbers_have_no_percentages(tmp_path, capsys):
    for name, rmse in (("fold-1", 12.0), ("fold-2", 14.0)):
        (tmp_path / name).mkdir()
        for split in ("val", "test"):
            write_json(tmp_path / name / f"evaluation-{split}.json", {"rmse": rmse, "samples": 3})
    write_fold_report(tmp_path, collect_folds([tmp_path / "fold-1", tmp_path / "fold-2"]))
    assert "<b>13 ± 1.414</b><span>test rmse</span>" in (tmp_path / "report.html").read_text("utf-8")
    assert capsys.readouterr().out.startswith("test  rmse                 13.0000 ± 1.4142")

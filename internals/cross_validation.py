"""k-fold runs; test_cross_validation_lightning.py and test_cross_validation_paddle.py run them in their framework."""

import json
from pathlib import Path

import numpy as np
import pytest

from scripts.train import main
from src.kit.catalog import build_dataset
from src.kit.config.compose import load_config
from src.kit.errors import UserError
from src.kit.run import read_json, write_json

TINY = ["trainer.max_epochs=1", "tracker=none", "trainer.folds=2"]
TINY += [f"trainer.limit_{kind}_batches=2" for kind in ("train", "val", "test")]


class CrossValidationTests:
    """Subclasses name the framework."""

    framework: str

    def keys(self, folder: Path, *overrides: str) -> list[str]:
        return [f"framework={self.framework}", f"output_dir={folder.as_posix()}", *TINY, *overrides]

    def test_folds_are_ordinary_runs_and_a_cut_off_one_goes_on(self, tmp_path, capfd):
        main(self.keys(tmp_path))
        (folder,) = tmp_path.iterdir()
        result = read_json(folder / "folds.json")
        runs = [folder / name for name in result["runs"]]
        accuracies = [read_json(run / "evaluation-test.json")["accuracy"] for run in runs]
        score = result["scores"]["test"]["accuracy"]
        assert score["values"] == accuracies
        assert score["mean"] == pytest.approx(np.mean(accuracies))
        assert score["std"] == pytest.approx(np.std(accuracies, ddof=1))
        assert f"test  accuracy             {score['mean']:.4f} ± {score['std']:.4f}" in capfd.readouterr().out
        splits = [read_json(run / "splits.json") for run in runs]
        assert set(splits[0]["val"]["ids"]) == set(splits[1]["train"]["ids"])
        assert set(splits[1]["val"]["ids"]) == set(splits[0]["train"]["ids"])
        assert splits[0]["test"] == splits[1]["test"]
        table = (folder / "folds.csv").read_text("utf-8").splitlines()
        assert table[0] == "split,score,mean,std,fold 1,fold 2"
        assert len(table) == 1 + 2 * len(result["scores"]["test"])
        page = (folder / "report.html").read_text("utf-8")
        assert all(f'href="{run.name}/report.html"' in page for run in runs)
        assert (folder / "pictures" / "folds.png").stat().st_size > 0
        with pytest.raises(UserError, match="has finished: repeat it with --from"):
            main(["--resume", str(folder)])

        assert read_json(folder / "run.json")["status"] == "finished"
        assert read_json(folder / "run.json")["command"][0] == "python", "by which --auto-resume finds it"

        # as if it had been killed while the second fold's report was written, and before that in its first epoch
        (folder / "folds.json").unlink()
        (runs[1] / "report.html").unlink()
        (folder / "fold-2-20200101-000000").mkdir()
        write_json(runs[1] / "run.json", {**read_json(runs[1] / "run.json"), "status": "running"})
        first = {path: path.stat().st_mtime_ns for path in runs[0].rglob("*") if path.is_file()}
        main(["--resume", str(folder)])
        again = read_json(folder / "folds.json")
        assert again == result, "the same runs and the same scores"
        assert (runs[1] / "report.html").is_file()
        assert sorted(folder.glob("fold-*")) == sorted(runs)
        assert {path: path.stat().st_mtime_ns for path in runs[0].rglob("*") if path.is_file()} == first

    def test_a_mistake_leaves_nothing(self, tmp_path, capfd):
        with pytest.raises(UserError, match="Fold 1 of 2 could not start"):
            main(self.keys(tmp_path, "data.batch_size=9999"))
        assert "data.batch_size=9999 is more than the" in capfd.readouterr().err
        assert not list(tmp_path.iterdir())

    def test_data_without_folds_are_refused(self, tmp_path, monkeypatch):
        whole = build_dataset(load_config([]), "val")
        monkeypatch.setattr("src.kit.training.runs.build_dataset", lambda cfg, split: whole)
        with pytest.raises(UserError, match="data=digits cannot be divided into folds"):
            main(self.keys(tmp_path))
        assert not list(tmp_path.iterdir())

    def test_repeating_a_run_with_other_data_is_said_and_going_on_is_refused(self, tmp_path, capfd):
        single = [key for key in self.keys(tmp_path) if key != "trainer.folds=2"]
        main(single)
        (run,) = tmp_path.iterdir()
        assert json.loads((run / "splits.json").read_text("utf-8"))["val"]["samples"] == 269
        main(["--from", str(run), "seed=1"])
        assert f"The samples differ from those of {run}: train (1,259 samples, now 1,259)" in capfd.readouterr().out
        splits = read_json(run / "splits.json")
        splits["val"]["sha256"] = "another"
        write_json(run / "splits.json", splits)
        write_json(run / "run.json", {**read_json(run / "run.json"), "status": "failed"})
        with pytest.raises(UserError, match=r"The data have changed since .*: val \(269 samples, now 269\)"):
            main(["--resume", str(run)])

"""Training on tables; test_tabular_lightning.py and test_tabular_paddle.py run it in their framework."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet
from pyarrow.csv import read_csv

from scripts.predict import main as predict
from src.datasets.tabular import table_file
from src.kit.catalog import build_dataset, call_with_keys
from src.kit.config.compose import load_config
from src.kit.errors import UserError
from src.kit.inference import Predictor, read_card
from src.kit.run import Run
from src.kit.tabular import from_json
from src.kit.training import (
    Experiment,
    RunPredictor,
    evaluate_command,
    evaluate_run,
    export_run,
    find_checkpoint,
    load_experiment,
)
from src.kit.training.exports import describe_data
from src.kit.training.splits import describe_splits, write_splits
from src.kit.weights import load_metadata, load_weights
from table_files import mixed_columns, mixed_config, write_csv
from tests.support import fit

SEEDS = (0, 1, 2, 3, 4)


class TableTests:
    """Subclasses name the framework."""

    framework: str

    def train(self, cfg) -> Path:
        """Train and return the run's folder."""
        with Run(cfg) as run:
            fit(cfg, run)
        return run.path

    def keys(self, folder: Path, *overrides: str) -> list[str]:
        short = ["trainer.max_epochs=15", "tracker=none"]
        return [f"framework={self.framework}", f"output_dir={folder.as_posix()}", *short, *overrides]

    def test_breast_cancer_is_told_with_96_percent_accuracy(self, tmp_path):
        scores = []
        for seed in SEEDS:  # a mean: one of the 86 test rows is 1.2 percent
            cfg = load_config(["task=tabular", *self.keys(tmp_path, f"seed={seed}")])
            scores.append(evaluate_run(Experiment(cfg), self.train(cfg), ["test"])["test"]["accuracy"])
        print(f"breast cancer, {self.framework}: {[round(score, 3) for score in scores]}")
        assert np.mean(scores) >= 0.96

    def test_house_values(self, tmp_path):
        cfg = load_config(["task=tabular_regression", *self.keys(tmp_path, "trainer.max_epochs=8")])
        run = self.train(cfg)
        scores = evaluate_run(Experiment(cfg), run, ["test"])["test"]
        assert scores["r2"] > 0.75
        assert scores["rmse"] < 0.5, "in 100,000 dollars"
        row = dict.fromkeys(from_json(Predictor.open(run).card.input["columns"]).names)  # all missing: medians
        (found,) = Predictor.open(run).predict([row])
        assert 0 < found["value"] < 10
        assert {path.name for path in (run / "pictures").glob("*.png")} >= {
            "test-predictions.png",
            "training-images.png",
        }

    @pytest.mark.parametrize("resample", ["none", "smote"])
    def test_a_checkpoint_keeps_how_rows_are_encoded(self, tmp_path, resample):
        overrides = ["data.batch_size=16", "optimizer.lr=0.01", f"data.resample={resample}"]
        cfg = mixed_config(tmp_path, *self.keys(tmp_path, *overrides))
        run = self.train(cfg)
        checkpoint = find_checkpoint(run, "best")
        metadata = load_weights(checkpoint / "model.safetensors")[1]
        test = build_dataset(cfg, "test")
        rows = call_with_keys(table_file.read_whole, cfg.data).take(test.ids)
        np.testing.assert_array_equal(from_json(metadata["preprocessing"]).transform(rows), test.images.values)
        assert json.loads(metadata["classes"]) == ["no", "yes"]
        if resample == "none":
            folder = export_run(run, ["onnx"])[0]
            known = set(read_card(folder).reference)
            assert known == {*test.preprocessing.names, "predicted class", "predicted score"}
        (tmp_path / "mixed.csv").unlink()  # predictions need no data
        given = [{name: column[row] for name, column in rows.columns.items()} for row in range(len(rows))]
        predicted = [each["class"] for each in Predictor.open(run).predict(given)]
        assert np.mean(np.array(test.classes)[test.targets] == predicted) > 0.8
        if resample == "none":
            assert describe_data(load_experiment(run), RunPredictor(run)) == {}, "without the data"
            exported = Predictor.open(folder).predict(given)
            assert [each["class"] for each in exported] == predicted
        file = write_csv(tmp_path / "mixed.csv", {**mixed_columns(), "more": ["1"] * 200})
        predict([str(run), str(file), "--out", str(tmp_path / "out")])
        with (tmp_path / "out" / "predictions.csv").open(encoding="utf-8") as lines:
            labelled = list(csv.DictReader(lines))
        assert [each["row"] for each in labelled] == [str(number) for number in range(1, 201)]
        right = [each["class"] == paid for each, paid in zip(labelled, mixed_columns()["paid"], strict=True)]
        assert np.mean(right) > 0.8
        self.check_parquet(run, tmp_path, labelled)
        with pytest.raises(UserError, match="have ';' between its columns, not ',' as in training: save it with ','"):
            predict([str(run), str(write_csv(tmp_path / "european.csv", mixed_columns(), ";"))])
        write_csv(file, mixed_columns())
        assert evaluate_run(Experiment(cfg), run, ["test"])["test"]["accuracy"] > 0.8

    def check_parquet(self, run, folder, labelled):
        """The rows of a Parquet file are labelled as those of the CSV file, with types."""
        parquet.write_table(read_csv(folder / "mixed.csv"), folder / "mixed.parquet")
        predict([str(run), str(folder / "mixed.parquet"), "--out", str(folder / "typed")])
        found = parquet.read_table(folder / "typed" / "predictions.parquet").to_pylist()
        assert [each["class"] for each in found] == [each["class"] for each in labelled]
        assert [each["row"] for each in found] == list(range(1, 201))
        scores = [float(each["score"]) for each in labelled]
        np.testing.assert_allclose([each["score"] for each in found], scores, rtol=1e-5)

    def test_other_rows_are_encoded_as_those_that_were_trained_on(self, tmp_path, capsys):
        run = self.train(mixed_config(tmp_path, *self.keys(tmp_path / "runs", "data.batch_size=16")))
        columns = mixed_columns()
        swap = {"no": "yes", "yes": "no"}
        columns["paid"] = [swap[word] for word in columns["paid"]]
        columns["city"] = [{"Aachen": "Zug"}.get(city, city) for city in columns["city"]]
        columns["income"] = [f"{float(text) + 1000}" if text else "" for text in columns["income"]]
        other = write_csv(tmp_path / "other.csv", columns)
        evaluate_command([str(run), f"data.root={other.as_posix()}"], "test")
        assert "warning" not in capsys.readouterr().err, "rows of another file"
        cfg = load_config([f"data.root={other.as_posix()}"], base=run / "config.yaml")
        fitted = build_dataset(cfg, "test")
        kept = load_metadata(find_checkpoint(run, "best") / "model.safetensors")["preprocessing"]
        cfg.data.preprocessing = str(find_checkpoint(run, "best") / "model.safetensors")
        seen = build_dataset(cfg, "test")
        expected = from_json(kept).transform(call_with_keys(table_file.read_whole, cfg.data).take(seen.ids))
        np.testing.assert_array_equal(seen.images.values, expected)
        assert abs(fitted.images.values[:, 1]).max() < 10 < abs(seen.images.values[:, 1]).max(), "as unusual as it is"
        assert 0 in seen.images.values[:, -1], "Zug is unknown"
        result = json.loads((run / "evaluation-test.json").read_text())
        assert result["samples"] == 200, "all rows: none was trained on"
        assert result["overrides"] == f"data.root={other.as_posix()}"

    def test_other_classes_are_refused(self, tmp_path):
        run = self.train(mixed_config(tmp_path, *self.keys(tmp_path / "runs", "trainer.max_epochs=1")))
        columns = mixed_columns()
        columns["paid"][:40] = ["late"] * 40
        other = write_csv(tmp_path / "other.csv", columns)
        with pytest.raises(UserError, match=r"'paid' has 'late', and .* was trained on 'no', 'yes' only"):
            evaluate_command([str(run), f"data.root={other.as_posix()}"], "test")

    def test_rows_that_were_trained_on_are_counted(self, tmp_path, capsys):
        cfg = mixed_config(tmp_path, *self.keys(tmp_path / "runs", "trainer.max_epochs=1"))
        run = self.train(cfg)
        write_splits(describe_splits(Experiment(cfg)), run)
        evaluate_command([str(run)], "test")
        assert "warning" not in capsys.readouterr().err
        evaluate_command([str(run), "seed=7"], "test")
        found = re.search(r"was trained on (\d+) of these test samples", capsys.readouterr().err)
        assert found
        assert 15 <= int(found[1]) <= 28, "about 70 % of 30"

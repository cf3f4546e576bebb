"""A user's mistakes on the command lines of the scripts are answered with one sentence."""

import re
from importlib import import_module

import pytest

from src.kit.config import UserError

URL = "https://example.org/x"


@pytest.mark.parametrize(
    "line",
    [
        f"convert_scenes --from voc --to coco here {URL}",
        f"download data=image_folder data.root={URL}",
        f"download data=mnist data.root={URL}",
        f"download --clean data=mnist data.root={URL}",
        f"eval {URL}",
        f"make_shards data=digits --out {URL}",
        f"optimize_for_edge {URL}",
        f"optimize_for_edge --output {URL}",
        f"plan {URL} --gpus 8",
        f"predict {URL} here",
        f"runs {URL}",
        f"serve {URL}",
        f"show_data data=digits --out {URL}.png",
        f"train task=tabular data=table_file data.root={URL}.csv",
        f"train data=mnist data.root={URL}",
        f"validate_data data=digits --json {URL}",
    ],
)
def test_a_url_where_a_file_or_folder_is_needed(line, tmp_path, monkeypatch):
    script, *arguments = line.split()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError, match=r"^(data\.root=|--\w+=)?https://example\.org/x\S* is not on this machine: give"
    ):
        import_module(f"scripts.{script}").main(arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("plan file", "file is not a folder: name that of a run"),
        ("runs file", "file is not a folder: name the one with the runs"),
        ("eval file", "file/config.yaml does not exist: name a run's folder"),
        ("serve file", "file is a file: give the folder of a run or of an export"),
        ("train data=image_folder data.root=file", "data.root=file is a file: give the folder"),
        ("train task=tabular data=table_file data.root=folder", "data.root=folder is not a file: give the path"),
        ("train model.weights=folder", "Weights must be a .safetensors file, not 'folder'"),
        ("convert_scenes --from yolo --to coco folder file", "file is there already: name a new folder"),
    ],
)
def test_a_file_in_place_of_a_folder_and_the_other_way_round(line, message, tmp_path, monkeypatch):
    script, *arguments = line.split()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=re.escape(message)):
        import_module(f"scripts.{script}").main(arguments)

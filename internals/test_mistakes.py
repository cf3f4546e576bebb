"""A user's mistakes on the command lines of the scripts are answered with one sentence."""

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

"""A token from the environment and a password in a URL reach no file, tracker, log or message."""

import logging
import subprocess
import sys

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from paths import TEMPLATE
from src.kit.config import UserError, hide_passwords, load_config, passwords, shown_config, write_config
from src.kit.errors import run_main
from src.kit.run import open_log

PATTERN = r"(?:https://me:hunter2@host/${oc.env:SECRET_OF_TEST})?(\d+)"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:hunter2@host/x", "https://me:***@host/x"),
        ("s3://key:a/b@c@host:80/x", "s3://key:***@host:80/x"),
        ("no https://:hunter2@host, and http://u:v@h", "no https://:***@host, and http://u:***@h"),
        ("https://ghp_0123456789abcdefgh@github.com/x", "https://***@github.com/x"),
        ("https://h/x?a=1&X-Amz-Signature=abc&b=2", "https://h/x?a=1&X-Amz-Signature=***&b=2"),
        ("https://h/x?access_token=abc", "https://h/x?access_token=***"),
        ("https://h/x?sig=abc", "https://h/x?sig=***"),
        ("https://host:443/a@b", "https://host:443/a@b"),
        ("https://me@host/x and a:b@c", "https://me@host/x and a:b@c"),
        ("https://h/x?design=1", "https://h/x?design=1"),
    ],
)
def test_passwords_in_urls_are_hidden(text, shown):
    assert hide_passwords(text) == shown
    assert hide_passwords(shown) == shown


def test_interpolations_of_the_environment_stay(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_OF_TEST", "tokentoken")
    secret = "data.group_pattern=${oc.env:SECRET_OF_TEST}"
    cfg = load_config(["data=image_folder", secret, "data.root=x/${data.group_pattern}", "output_dir=o/${seed}"])
    assert cfg.data.root == "x/tokentoken"
    shown = shown_config(cfg)
    assert shown["data"]["group_pattern"] == "${oc.env:SECRET_OF_TEST}"
    assert shown["data"]["root"] == "x/${data.group_pattern}"
    assert (shown["output_dir"], shown["name"]) == ("o/42", "small_cnn-image_folder")
    write_config(cfg, tmp_path / "config.yaml")
    assert "tokentoken" not in (tmp_path / "config.yaml").read_text("utf-8")
    monkeypatch.setenv("SECRET_OF_TEST", "another")
    assert load_config([], base=tmp_path / "config.yaml").data.root == "x/another"


def test_a_password_is_asked_for_when_a_run_is_repeated(tmp_path):
    cfg = load_config(["data=image_folder", "data.root=https://me:hunter2@host"])
    assert passwords(cfg) == ["data.root=https://me:hunter2@host"]
    write_config(cfg, tmp_path / "config.yaml")
    with pytest.raises(UserError, match=r"does not keep the password of data\.root"):
        load_config([], base=tmp_path / "config.yaml")
    assert load_config(passwords(cfg), base=tmp_path / "config.yaml").data.root == cfg.data.root


def test_log_and_messages_hide_passwords(tmp_path, capsys):
    log = logging.getLogger("test of secrets")
    handlers = open_log(log, tmp_path / "train.log")
    log.info("reading %s", "https://me:hunter2@host")
    for handler in handlers:
        log.removeHandler(handler)
        handler.close()

    def fail(argv: list[str]) -> None:
        raise UserError("https://me:hunter2@host/x does not answer.")

    with pytest.raises(SystemExit):
        run_main(fail, [])
    printed = capsys.readouterr()
    texts = ((tmp_path / "train.log").read_text("utf-8"), printed.out, printed.err)
    assert all("me:***@host" in text and "hunter2" not in text for text in texts)


@pytest.mark.parametrize(("framework", "tracker"), [("paddle", "mlflow"), ("lightning", "wandb")])
def test_no_file_of_a_run_has_a_secret(tmp_path, monkeypatch, framework, tracker):
    monkeypatch.setenv("SECRET_OF_TEST", "tokentoken")
    for number in range(24):
        path = tmp_path / "images" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), number * 9, np.uint8)).save(path)
    words = ["data=image_folder", "data.image_size=8", "data.batch_size=4", f"data.root={tmp_path / 'images'}"]
    words += ["trainer=debug", f"output_dir={tmp_path / 'outputs'}", f"tracker={tracker}", f"framework={framework}"]
    command = [sys.executable, "scripts/train.py", *words, f"data.group_pattern={PATTERN}"]
    done = subprocess.run(command, cwd=TEMPLATE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    files = [path for path in (tmp_path / "outputs").rglob("*") if path.is_file()]
    assert {"config.yaml", "report.html", "run.json", "train.log"} <= {path.name for path in files}
    leaks = [path.name for path in files if b"tokentoken" in path.read_bytes() or b"hunter2" in path.read_bytes()]
    assert not leaks
    (saved,) = (tmp_path / "outputs").glob("*/config.yaml")
    assert (
        "me:***@host/${oc.env:SECRET_OF_TEST}"
        in OmegaConf.load(saved)._get_node("data")._get_node("group_pattern")._value()
    )

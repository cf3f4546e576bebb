"""What scripts/validate_data.py prints, writes and returns; its page is one safe file with pictures."""

import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from checked_data import class_folders, coco_folder, picture, yolo_folder
from paths import TEMPLATE
from src.kit.checks import report
from src.kit.checks.checking import check_data, extensions, printable
from src.kit.checks.findings import KINDS, SEVERITIES, Finding
from src.kit.checks.report import SIZE, lenient, thumbnail
from src.kit.config import load_config
from src.kit.errors import run_main

EVIL = "<img src=x onerror=alert(1)>.jpg"


def script(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, str(TEMPLATE / "scripts" / "validate_data.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=TEMPLATE, check=False)


class Page(HTMLParser):
    """Collects the tags, and the addresses of everything that a page refers to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attributes if name in ("src", "href")]
        assert not any(name.startswith("on") for name, _ in attributes)


def test_errors_give_exit_code_1_and_both_reports(tmp_path):
    root = class_folders(tmp_path / "data")
    (root / "train/cat" / "0.jpg").write_bytes(b"garbage")
    shutil.copy(root / "train/dog/0.jpg", root / "train/dog/again.jpg")
    done = script("data=image_folder", f"data.root={root}", f"output_dir={tmp_path}")
    assert done.returncode == 1, done.stderr
    assert ": 1 error, 1 warning, 0 notes" in done.stdout
    assert "train/cat/0.jpg: It cannot be decoded: its content is no image." in done.stdout
    values = json.loads((tmp_path / "data-report-data" / "report.json").read_text("utf-8"))
    assert (values["images"], values["errors"], values["warnings"]) == (13, 1, 1)
    assert values["counts"]["train"] == {"cat": 3, "dog": 4}
    assert [(row["severity"], row["kind"], row["path"]) for row in values["findings"]] == [
        ("error", "unreadable", "train/cat/0.jpg"),
        ("warning", "duplicate", "train/dog/again.jpg"),
    ]
    page = (tmp_path / "data-report-data" / "report.html").read_text("utf-8")
    assert "1 error:" in page and 'id="duplicate"' in page
    assert not (root / ".quarantine").exists()


def test_warnings_alone_give_exit_code_0_and_the_files_go_where_they_are_wanted(tmp_path):
    root = yolo_folder(tmp_path / "data")
    (root / "labels/train/a.txt").unlink()
    page, values = tmp_path / "a" / "page.html", tmp_path / "b" / "values.json"
    done = script(
        "data=yolo_folder",
        f"data.root={root}",
        "data.image_size=32",
        "--report",
        page,
        "--json",
        values,
        "--workers",
        1,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(values.read_text("utf-8"))["warnings"] == 1
    assert "No errors" in page.read_text("utf-8")


def test_quarantine_and_restore(tmp_path):
    root = coco_folder(tmp_path / "data")
    (root / "val/1.jpg").write_bytes(b"")
    arguments = ("data=coco_folder", f"data.root={root}", f"output_dir={tmp_path}")
    assert script(*arguments, "--quarantine").returncode == 1
    assert not (root / "val/1.jpg").exists()
    assert script(*arguments).returncode == 0
    done = script(*arguments, "--restore")
    assert (done.returncode, done.stdout) == (0, "Restored 2 files.\n")
    assert (root / "val/1.jpg").read_bytes() == b""
    assert "no quarantine" in script(*arguments, "--restore").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data=image_folder", "data.root=/no/such/folder"], "does not exist"),
        (["--quarantine", "--restore"], "choose one"),
        (["data=digits", "--quarantine"], "has none"),
        (["--workers", "0"], "at least 1"),
        (["data.rot=x"], "Did you mean"),
    ],
)
def test_mistakes_are_one_sentence(arguments, message, capsys):
    sys.path.insert(0, str(TEMPLATE / "scripts"))
    import validate_data

    with pytest.raises(SystemExit) as stop:
        run_main(validate_data.main, arguments)
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert message in error and error.count("\n") == 1


def test_packed_data_sets_are_checked_as_arrays(tmp_path):
    done = script("data=digits", f"output_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    values = json.loads((tmp_path / "data-report-digits" / "report.json").read_text("utf-8"))
    assert values["images"] == 1797
    assert sum(sum(counts.values()) for counts in values["counts"].values()) == 1797


@pytest.mark.skipif("TEST_DATA_DIR" not in os.environ, reason="TEST_DATA_DIR names no folder with real data")
def test_copies_in_packed_data_sets(tmp_path):
    """MNIST, with a training image among the test images."""
    import gzip

    for path in Path(os.environ["TEST_DATA_DIR"]).glob("*ubyte.gz"):
        (tmp_path / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    path = tmp_path / "t10k-images-idx3-ubyte"
    content = bytearray(path.read_bytes())
    content[16 : 16 + 784] = (tmp_path / "train-images-idx3-ubyte").read_bytes()[16 : 16 + 784]
    path.write_bytes(content)
    done = script("data=mnist", f"data.root={tmp_path}", f"output_dir={tmp_path}")
    assert done.returncode == 1, done.stderr
    values = json.loads((tmp_path / "data-report-mnist" / "report.json").read_text("utf-8"))
    assert [row["other"] for row in values["findings"] if row["kind"] == "leak"] == ["test[0]"]


@pytest.mark.skipif(os.name == "nt", reason="such names cannot be made on Windows")
def test_names_of_files_can_harm_neither_the_page_nor_the_terminal(tmp_path):
    root = class_folders(tmp_path / "data")
    for name in (EVIL, "\x1b[31mred\n.jpg", os.fsdecode(b"\xff\xfe.jpg")):
        (root / "train/cat" / name).write_bytes(b"garbage")
    picture(root / "train" / EVIL / EVIL, 90)
    shutil.copy(root / "train" / EVIL / EVIL, root / "train/cat/copy.jpg")
    done = script("data=image_folder", f"data.root={root}", f"output_dir={tmp_path}")
    assert done.returncode == 1, done.stderr
    assert "\x1b" not in done.stdout
    assert len(done.stdout.splitlines()) == len(done.stdout.split("\n")) - 1
    page = Page(tmp_path / "data-report-data" / "report.html")
    assert all(link.startswith(("data:image/jpeg;base64,", "#")) for link in page.links)
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert printable("a\x1b[0m\nb\udcff") == "a?[0m?b?"


def test_the_page_stays_small_however_much_is_wrong(tmp_path):
    root = class_folders(tmp_path / "data")
    for number in range(report.LISTED + 50):
        (root / "train/cat" / f"{number}.png").write_bytes(b"")
        Image.new("L", (2, 2), number % 256).save(root / "train/dog" / f"{number}.png")
    assert script("data=image_folder", f"data.root={root}", f"output_dir={tmp_path}").returncode == 1
    path = tmp_path / "data-report-data" / "report.html"
    assert path.stat().st_size < 300_000
    assert "50 more are in the JSON file" in path.read_text("utf-8")
    assert Page(path).tags.count("img") <= report.SHOWN * len(KINDS)


def decode(url: str) -> np.ndarray:
    import base64
    import io

    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")).astype(int)


def test_a_thumbnail_shows_the_box_even_outside_the_image(tmp_path):
    path = tmp_path / "image.png"
    Image.new("RGB", (100, 50), (0, 0, 255)).save(path)
    shown = decode(thumbnail(path, (150.0, 10.0, 190.0, 40.0)))
    assert shown.shape[1] == SIZE
    scale = SIZE / 190
    row = shown[round(25 * scale)]
    orange = np.flatnonzero((row[:, 0] > 180) & (row[:, 2] < 90))
    assert abs(orange.min() - 150 * scale) <= 3 and orange.max() >= SIZE - 4
    assert (row[: int(95 * scale), 2] > 200).all()
    for box in ((-1e308, 0.0, 1e308, 1.0), (5.0, 5.0, 5.0, 5.0), (9.0, 9.0, 1.0, 1.0)):
        assert thumbnail(path, box).startswith("data:image/jpeg")


def test_what_is_left_of_a_truncated_image_is_shown(tmp_path):
    path = tmp_path / "image.jpg"
    Image.effect_noise((300, 200), 80).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[:9_000])
    with lenient():
        assert thumbnail(path).startswith("data:image/jpeg")
    assert thumbnail(path) == thumbnail(tmp_path / "nothing.jpg") == ""


def test_every_kind_is_complete():
    extensions()  # adds their kinds
    for kind, (severity, title, advice) in KINDS.items():
        assert severity in SEVERITIES and title and advice.endswith("."), kind
        assert Finding(kind, "a", "b").severity == severity
    used = set()
    for path in [*(TEMPLATE / "src" / "kit").glob("*checks/*.py"), *(TEMPLATE / "src" / "kit").glob("*checks.py")]:
        source = re.sub(r"KINDS[^=]*= {.*?\n}|KINDS.update\(.*?\n\)", "", path.read_text("utf-8"), flags=re.DOTALL)
        used |= set(re.findall(r'"([a-z_]+)"', source))
    assert {"leak", "box_empty", "column"} <= set(KINDS) <= used  # no kind that nothing finds


def test_reports_of_different_folders_do_not_overwrite_each_other(tmp_path):
    roots = [class_folders(tmp_path / parent / "photos") for parent in ("a", "b")]
    (roots[1] / "train/cat/0.jpg").unlink()
    counts = {}
    for root in [*roots, roots[0]]:  # the third replaces the first
        cfg = load_config(["data=image_folder", f"data.root={root}", f"output_dir={tmp_path / 'reports'}"])
        assert check_data(cfg, 2) == 0
    for path in (tmp_path / "reports").glob("*/report.json"):
        values = json.loads(path.read_text("utf-8"))
        counts[path.parent.name] = (values["root"], values["images"])
    assert counts == {"data-report-photos": (str(roots[0]), 12), "data-report-photos-2": (str(roots[1]), 11)}


def test_own_data_is_called_by_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for root, title in (("photos", "photos"), ("a/鸟 & 花/", "鸟_花"), ("../x/.", "x"), (".", tmp_path.name)):
        cfg = load_config(["data=image_folder", f"data.root={root}", "model=resnet18"])
        assert (cfg.data.title, cfg.name) == (title, f"resnet18-{title}")
    assert load_config(["data=image_folder", "data.title=mine"]).name == "small_cnn-mine"
    assert load_config(["data=digits"]).data.title == "digits"

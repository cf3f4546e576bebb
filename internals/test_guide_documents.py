"""README.md and the guides: their commands exist, their links lead somewhere, and they hold only what a project has."""

import re
import shlex
from dataclasses import replace

import pytest

from guide import KINDS, commands, documents
from paths import TEMPLATE
from src.kit.config import load_config
from src.kit.search import read_plan

PLACEHOLDERS = ("NAME", "FILE", "KEY=", "VALUE", "RUN data.root=other.csv", "{", "checkpoint=")
OWN = ("=linear", "=arrays", "=long", "=polynomial", "=text_file", "=soft_margin", "=pets", "[kappa]")  # of the guide
FOREIGN = {
    "scenes": r"\bCOCO|\bYOLO|\bscenes?\b|\boutlines?\b|\bboxes\b|digit_scenes|coco_folder|RetinaNet|R-CNN",
    "tabular": r"\btabular|table_file|\bCSV\b|breast_cancer",
    "shards": r"[Ss]hard|WebDataset",
    "cluster": r"cluster\.md|deploy/cluster|plan\.py|\bRay\b",
    "search": r"[Ss]earch\.py|[Oo]ptuna|#search",
    "paddle": r"[Pp]addle",
    "lightning": r"[Ll]ightning|PyTorch Light",
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_command_exists(kind):
    found = 0
    for name, text in documents(kind).items():
        for command in commands(text):
            words = shlex.split(command.replace("\\", "/")) if command.startswith(("python scripts/", "nox")) else []
            if words[:1] == ["python"]:
                found += 1
                source = (TEMPLATE / words[1]).read_text("utf-8")
                options = [word.partition("=")[0] for word in words[2:] if word.startswith("--")]
                source += (TEMPLATE / "scripts" / "train.py").read_text("utf-8")
                for option in options:
                    assert option in source, (name, command)
            elif words[:2] == ["nox", "-s"]:
                found += 1
                assert f"def {words[2]}(" in (TEMPLATE / "noxfile.py").read_text("utf-8"), (name, command)
    assert found > 20


@pytest.mark.parametrize("kind", KINDS)
def test_every_key_of_a_command_exists(kind):
    for name, text in documents(kind).items():
        for command in commands(text):
            if not command.startswith("python scripts/") or any(word in command for word in (*PLACEHOLDERS, *OWN)):
                continue
            if command.startswith("python scripts/search.py"):
                replace(read_plan(shlex.split(command)[2:]), on="here").check()  # elsewhere needs SLURM or Ray
                continue
            overrides = [word for word in shlex.split(command)[2:] if "=" in word and not word.startswith("--")]
            given, own = KINDS[kind], []
            if not command.startswith("python scripts/test.py"):  # takes the run's
                own = ["task=classification" if given["task"] == "all" else f"task={given['task']}"]
                own += [f"data={given['start'][1]}"]
            assert load_config([*own, *overrides]), (name, command)  # the last of two equal keys counts


@pytest.mark.parametrize("kind", KINDS)
def test_links_lead_somewhere(kind):
    texts = documents(kind)
    for name, text in texts.items():
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            path, _, anchor = target.partition("#")
            if path.startswith("http") or path in ("LICENSE", "PROJECT_BUILD_LOG.md", "notebook.ipynb"):
                continue
            page = path.rpartition("/")[2] or name
            assert page in texts, (name, target)
            titles = re.findall(r"^#+ (.+)$", texts[page], re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert not anchor or anchor in anchors, (name, target)


@pytest.mark.parametrize("kind", KINDS)
def test_documents_hold_only_what_the_project_has(kind):
    given = KINDS[kind]
    has = {
        "scenes": given["scenes"],
        "tabular": "tabular" in given["tasks"],
        "shards": "streaming" in given["extras"],
        "search": "search" in given["extras"],
        "cluster": "cluster" in given["extras"],
        "paddle": "paddle" in given["backends"],
        "lightning": "lightning" in given["backends"],
    }
    for name, text in documents(kind).items():
        assert not re.search(r"\{\{|\{%", text), f"{name} holds a template's tag"
        for what, words in FOREIGN.items():
            if not has[what]:
                assert not (found := re.search(words, text)), (name, found)

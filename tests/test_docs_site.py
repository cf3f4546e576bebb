"""The documentation site: strict build, English and Chinese in step, and commands that exist."""

import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

from tests.render import ROOT
from tools.docs_sentences import sentences
from tools.docs_site import LANGUAGES, SITE, assemble, requirements, to_repository, write

pytest.importorskip("omegaconf")
PAGES = sorted(path.relative_to(SITE / "en").as_posix() for path in (SITE / "en").rglob("*.md"))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
FILES = ("train", "search", "show_data", "validate_data", "estimate_memory", "benchmark", "benchmark_data", "download")
OTHERS = {"quick_validate", "full_validate", "make_shards"}  # take keys too
OTHER_PROGRAMS = ("pip install ", "curl ", "cd ", "python3 -m venv", "export ", "#SBATCH ", "uvicorn src.api:app ")


@cache
def text(language: str, page: str) -> str:
    return (SITE / language / page).read_text("utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_both_languages_are_in_step(page: str) -> None:
    """Equal levels of headings, code, links, figures and words in code, section by section; no section is empty."""
    english, chinese = (re.split(r"^(#+) ", BLOCK.sub("", text(language, page)), flags=re.M) for language in LANGUAGES)
    assert english[1::2] == chinese[1::2]
    assert BLOCK.findall(text("en", page)) == BLOCK.findall(text("zh", page))
    for one, other in zip(english[2::2], chinese[2::2], strict=True):
        assert other.strip()
        for pattern in (r"`([^`\n]+)`", r"\]\(([^)]+)\)", r"(?<![\w.])\d+(?:[.,]\d+)*"):
            assert sorted(re.findall(pattern, one)) == sorted(re.findall(pattern, other)), other[:60]


def test_same_pages() -> None:
    assert sorted(path.relative_to(SITE / "zh").as_posix() for path in (SITE / "zh").rglob("*.md")) == PAGES
    navigations = [re.findall(r"[\w/]+\.md", (SITE / name).read_text("utf-8")) for name in ("mkdocs.yml", "zh.yml")]
    assert navigations[0] == [name for name in navigations[1] if name in navigations[0]]


def test_requirements_are_in_step_and_honest() -> None:
    page = yaml.safe_load((SITE / "requirements.yml").read_text("utf-8"))
    rows = [row for section in page["sections"] for row in section["rows"]]
    figures = [
        [re.findall(r"\d+(?:\.\d+)?", words) for words in pair]
        for row in rows
        for pair in (row["what"], row.get("note", ["", ""]))
    ]
    assert [pair for pair in figures if pair[0] != pair[1]] == []
    unproven = sum("proof" not in row for row in rows)
    assert requirements("en").count("**none yet**") == requirements("zh").count("**尚无**") == unproven


def test_every_sentence_is_found() -> None:
    """As many as the source has, by a count that does not parse."""
    found = {words for _, words in sentences()}
    calls = sum(
        len(re.findall(r"raise UserError\(", path.read_text("utf-8"))) for path in (ROOT / "template/src").rglob("*.py")
    )
    assert len(found) > 0.85 * calls
    assert any("activate the project's virtual environment" in words for words in found), "a variable"
    assert any("takes other data than the model in service" in words for words in found), "a coroutine"
    assert any("Did you mean" in words for words in found), "a function that makes sentences"


def commands(page: str) -> list[str]:
    """Lines of the blocks without a language."""
    return [
        line.split("  #")[0].strip() for kind, block in BLOCK.findall(page) if not kind for line in block.splitlines()
    ]


ROWS = [
    row["run"]
    for section in yaml.safe_load((SITE / "requirements.yml").read_text("utf-8"))["sections"]
    for row in section["rows"]
    if "run" in row
]
COMMANDS = {page: commands(text("en", page)) for page in PAGES} | {"requirements.yml": ROWS}


def test_commands_name_what_exists() -> None:
    """Scripts, options, sessions and answers; and each choice of groups loads, with all keys and values set with it."""
    sys.path.insert(0, str(ROOT / "template"))
    from src.kit.config import load_config  # type: ignore[import-not-found]

    wanted: dict[tuple[str, ...], set[str]] = {}  # groups that a command chooses -> keys set with them
    for page in COMMANDS:
        check_page(page, wanted)
    assert len(wanted) > 20
    for chosen, keys in wanted.items():
        load_config([*chosen, *sorted(keys)])


def check_page(page: str, wanted: dict[tuple[str, ...], set[str]]) -> None:
    """Check the commands of a page, and add its keys to `wanted`."""
    lines = [part for line in COMMANDS[page] for part in line.split(" && ")]
    answers = re.findall(r"--data (task|dataset)=(\w+)", "\n".join(lines))
    given = tuple(f"{'data' if key == 'dataset' else key}={value}" for key, value in answers)
    for line in lines:
        words = shlex.split(line)
        if words[:2] == ["nox", "-s"]:
            noxfiles = "".join((ROOT / name).read_text("utf-8") for name in ("noxfile.py", "template/noxfile.py"))
            assert f"def {words[2]}(session" in noxfiles, line
        elif words[0] in ("copier", "cookiecutter"):
            questions = re.findall(r"^(\w+):", (ROOT / "copier.yml").read_text("utf-8"), re.M)
            assert all(word.partition("=")[0] in questions for word in words if "=" in word), line
        elif script := next((word for word in words if word.startswith("scripts/")), ""):
            check_script(script, words[words.index(script) + 1 :], given, line, wanted)
        else:
            assert line.startswith(OTHER_PROGRAMS) or line == ". .venv/bin/activate", line


def check_script(
    script: str, words: list[str], given: tuple[str, ...], line: str, wanted: dict[tuple[str, ...], set[str]]
) -> None:
    """Refuse a script or an option that does not exist, and add the keys of its command to `wanted`."""
    source = ROOT / "template" / script
    assert source.is_file(), line
    package = re.findall(r"from src\.kit\.(\w+) import", source.read_text("utf-8"))
    places = [source, *(path for name in package for path in (ROOT / "template/src/kit").glob(f"{name}*/*.py"))]
    known = "".join(path.read_text("utf-8") for path in places)
    for word in words:
        if word.startswith("--") and len(word) > 2:
            assert word.partition("=")[0] in known, f"{line}: {word}"
    if source.stem in {*FILES, *OTHERS} and "--from" not in words and "--resume" not in words:
        keys = [*given, *(word for word in words if "=" in word and not word.startswith("--"))]
        if source.stem == "search":  # of ranges and lists the first value
            files = [key.removeprefix("search=") for key in keys if key.startswith("search=")]
            assert all((ROOT / f"template/src/configs/search/{name}.yaml").is_file() for name in files), line
            keys = [re.sub(r"(\.\.|,)[^\[\]]*$", "", key) for key in keys if not key.startswith("search=")]
        if "model=tiny_res" not in keys:  # the tutorial's own network
            chosen = tuple(sorted(key for key in keys if "." not in key.partition("=")[0]))
            wanted.setdefault(chosen, set()).update(set(keys) - set(chosen))


def test_strict_build(tmp_path: Path) -> None:
    """No broken link or anchor, no page left out, nothing loaded from elsewhere."""
    pytest.importorskip("material", reason="needs Python 3.11")
    write()
    for name in ("mkdocs.yml", "zh.yml"):
        command = [sys.executable, "-m", "mkdocs", "-q", "build", "--strict", "-f", str(SITE / name)]
        folder = tmp_path / name
        done = subprocess.run([*command, "-d", str(folder)], capture_output=True, encoding="utf-8", check=False)
        assert done.returncode == 0, done.stderr
        style = (folder / "site.css").read_text("utf-8")
        assert "td code { word-break: normal; overflow-wrap: normal; }" in style, "words are not cut: tables scroll"
        for page in folder.rglob("*.html"):
            loaded = re.findall(r'(?:src|<link[^>]+href)="(https?://[^"]+)"', page.read_text("utf-8"))
            assert not loaded, (page, loaded)


def test_a_broken_link_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"links to tests/none\.py"):
        to_repository("[text](repo:tests/none.py)", "index.md")
    assert set(assemble("en")) >= {"reference.md", "requirements.md", "guide/guide.md"}

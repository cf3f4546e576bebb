"""Assemble the documentation site in docs/site/build: the pages of docs/site/en and zh, and those that are generated.

    python -m tools.docs_site && mkdocs build --strict -f docs/site/mkdocs.yml    # or: nox -s docs

    reference.md          every key, from the kit's keys.yaml and the signatures of the components
    requirements.md       docs/site/requirements.yml
    troubleshooting.md    the hand-written page, then every sentence with which a command ends, read from the source
    guide/*.md            what a project with everything carries (template/docs)
    contributing.md ...   the files of docs/ and CHANGELOG.md

`[text](repo:PATH)` links to a file of this repository; one that does not exist is an error.
"""

import posixpath
import re
import shutil
import sys
from functools import cache
from pathlib import Path

import yaml

from tools.docs_keys import cell, reference
from tools.docs_sentences import messages

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "docs/site"
REPOSITORY = "https://github.com/org/ml-template"
LANGUAGES = ("en", "zh")
INCLUDED = {
    "contributing.md": "docs/contributing.md",
    "benchmarks.md": "docs/benchmarks.md",
    "design.md": "docs/design.md",
    "releasing.md": "docs/releasing.md",
    "changelog.md": "CHANGELOG.md",
}


@cache
def words_of(language: str) -> dict[str, str]:
    """The words of generated pages."""
    words = yaml.safe_load((SITE / "words.yml").read_text("utf-8"))["words"]
    return {name: pair[LANGUAGES.index(language)] for name, pair in words.items()}


@cache
def assemble(language: str) -> dict[str, str]:
    """Name -> Markdown of every page in one language.

    Raises:
        ValueError: a link leads to a file that does not exist, or an explanation to no sentence.
    """
    words = words_of(language)
    english = words["english"]
    folder = SITE / language
    pages = {path.relative_to(folder).as_posix(): path.read_text("utf-8") for path in sorted(folder.rglob("*.md"))}
    pages["troubleshooting.md"] += "\n" + messages(LANGUAGES.index(language))
    pages |= {"reference.md": reference(words), "requirements.md": requirements(language)}
    pages |= {name: english + relink((ROOT / path).read_text("utf-8"), path) for name, path in INCLUDED.items()}
    pages |= {f"guide/{name}": english + relink(text, f"template/docs/{name}") for name, text in guide().items()}
    return {name: to_repository(unwrap(text), name) for name, text in pages.items()}


def unwrap(text: str) -> str:
    """Join lines between Chinese characters, where a line break would be shown as a space."""
    text = re.sub(r"(?<=[\u4e00-\u9fff])\n *(?=[\u4e00-\u9fff“（])", "", text)
    return re.sub(r"(?<=[，。；：、”）])\n *(?=[\u4e00-\u9fff“（A-Za-z0-9]|`[^`])", "", text)


def to_repository(text: str, name: str) -> str:
    """Resolve the `repo:` links of a page."""

    def link(found: re.Match[str]) -> str:
        if not (ROOT / found[1]).exists():
            raise ValueError(f"{name} links to {found[1]}, which does not exist.")
        return f"]({REPOSITORY}/blob/main/{found[1]}{found[2] or ''})"

    return re.sub(r"\]\(repo:([^)#]+)(#[^)]*)?\)", link, text)


def relink(text: str, path: str) -> str:
    """Links of an included file: to its page of the site if there is one, else to the repository."""
    pages = {source: name for name, source in INCLUDED.items()}

    def link(found: re.Match[str]) -> str:
        target, anchor = found[1], found[2] or ""
        if ":" in target:
            return found[0]
        full = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
        if full in pages:
            return f"]({pages[full]}{anchor})"
        inside = path.startswith("template/docs/") and full.startswith("template/docs/") and full.endswith(".md")
        return found[0] if inside else f"](repo:{full}{anchor})"

    return re.sub(r"\]\(([^)#\s]+)(#[^)]*)?\)", link, text)


def guide() -> dict[str, str]:
    """Name -> text of the pages that a project with both frameworks, all tasks and all extras carries."""
    sys.path[:0] = [str(ROOT / "internals"), str(ROOT / "template")]
    from guide import documents  # type: ignore[import-not-found]

    return {name: text for name, text in documents("everything").items() if name != "README.md"}


def requirements(language: str) -> str:
    """docs/site/requirements.yml as tables; a row without a proof says so."""
    words, number = words_of(language), LANGUAGES.index(language)
    page = yaml.safe_load((SITE / "requirements.yml").read_text("utf-8"))
    lines = [f"# {page['title'][number]}", "", page["intro"][number]]
    for section in page["sections"]:
        lines += ["", f"## {section['title'][number]}", "", words["needs"], "|---|---|---|"]
        for row in section["rows"]:
            links = [f"[{posixpath.basename(path)}](repo:{path})" for path in row.get("proof", [])]
            note = row.get("note", ["", ""])[number]
            proof = ", ".join(links) or f"**{words['without']}**"
            command = f"`{cell(row['run'])}`" if "run" in row else ""
            lines.append(f"| {row['what'][number]} | {command} | {proof}{f'. {note}' if note else ''} |")
    return "\n".join(lines) + "\n"


def write() -> None:
    """Write docs/site/build from scratch."""
    shutil.rmtree(SITE / "build", ignore_errors=True)
    for language in LANGUAGES:
        for name, text in assemble(language).items():
            file = SITE / "build" / language / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, "utf-8")
        shutil.copy(SITE / "site.css", SITE / "build" / language)


if __name__ == "__main__":
    write()

"""Copier silently drops what users changed in a file that a later release removes or renames.

So no file may go within a major version.
"""

import pytest
import yaml

from tests.history import SYNTHETIC, cases, git, releases, rendered, template_repository
from tests.render import EXPECTED, ROOT

VERSION = yaml.safe_load((ROOT / "versions.yml").read_text("utf-8"))["template"]


def same_major(tags: list[str]) -> list[str]:
    """The releases whose projects update to this version without a new major version."""
    return [tag for tag in tags if tag[1:].split(".")[0] == VERSION.split(".")[0]]


def gone(before: list[str], now: list[str]) -> list[str]:
    """The files that are no longer there; .jinja may come and go, as it is not in the rendered name."""
    left = {name.removesuffix(".jinja") for name in now}
    names = {name.removesuffix(".jinja") for name in before}
    return sorted(names - left)


OLDER = same_major([SYNTHETIC, *releases()])


def test_there_is_an_older_release() -> None:
    assert SYNTHETIC in OLDER or not VERSION.startswith("0."), "from 1.0.0 on, real releases take its place"


@pytest.mark.parametrize("tag", OLDER)
def test_no_file_is_removed_or_renamed(tag: str) -> None:
    before = git(template_repository(), "ls-tree", "-r", "--name-only", tag, "template").splitlines()
    now = [path.relative_to(ROOT).as_posix() for path in (ROOT / "template").rglob("*") if path.is_file()]
    assert before
    assert gone(before, now) == [], f"users of {tag} may have edited these: keep them until the next major version"


@pytest.mark.parametrize(("tag", "example"), [(tag, name) for tag, name in cases() if tag in OLDER])
def test_no_example_loses_a_file(tag: str, example: str) -> None:
    before = git(rendered(tag, example), "ls-files").splitlines()
    now = (EXPECTED / f"{example}.txt").read_text("utf-8").splitlines()
    assert before
    assert gone(before, now) == [], f"{example} since {tag}"


def test_a_rename_would_be_seen() -> None:
    before = ["template/a.py", "template/b.yaml"]
    assert gone(before, ["template/a.py.jinja", "template/c.yaml"]) == ["template/b.yaml"]
    assert same_major(["v99999.0.0"]) == []
    assert same_major([f"v{VERSION}"]) == [f"v{VERSION}"]

"""Copier silently drops what users changed in a file that a later release removes or renames.

So no file may go within a major version.
"""

from pathlib import Path

import pytest
import yaml

from tests.history import git, releases
from tests.render import EXPECTED, ROOT

VERSION = yaml.safe_load((ROOT / "versions.yml").read_text("utf-8"))["template"]
FREE = ("template/tests/internals/",)  # rendered into no project


def same_major(older: dict[str, str]) -> dict[str, str]:
    """The releases whose projects update to this version without a new major version."""
    return {tag: commit for tag, commit in older.items() if tag[1:].split(".")[0] == VERSION.split(".")[0]}


def gone(before: list[str], now: list[str]) -> list[str]:
    """The files that are no longer there; .jinja may come and go, as it is not in the rendered name."""
    left = {name.removesuffix(".jinja") for name in now}
    names = {name.removesuffix(".jinja") for name in before if not name.startswith(FREE)}
    return sorted(names - left)


def names_now(folder: Path) -> list[str]:
    return [path.relative_to(ROOT).as_posix() for path in folder.rglob("*") if path.is_file()]


def test_no_file_is_removed_or_renamed() -> None:
    older = same_major(releases())
    if not older:
        pytest.skip("no older release of this major version yet")
    for tag, commit in older.items():
        before = git(ROOT, "ls-tree", "-r", "--name-only", commit, "template").splitlines()
        lost = gone(before, names_now(ROOT / "template"))
        assert lost == [], f"users of {tag} may have edited these: keep them until the next major version"


def test_no_example_loses_a_file() -> None:
    older = same_major(releases())
    if not older:
        pytest.skip("no older release of this major version yet")
    for tag, commit in older.items():
        for path in EXPECTED.glob("*.txt"):
            name = path.relative_to(ROOT).as_posix()
            if git(ROOT, "ls-tree", commit, name):
                before = git(ROOT, "show", f"{commit}:{name}").splitlines()
                assert gone(before, path.read_text("utf-8").splitlines()) == [], f"{path.stem} since {tag}"


def test_a_rename_would_be_seen() -> None:
    before = ["template/a.py", "template/b.yaml", "template/tests/internals/test_a.py"]
    assert gone(before, ["template/a.py.jinja", "template/c.yaml"]) == ["template/b.yaml"]
    assert same_major({"v99999.0.0": "commit"}) == {}
    assert same_major({f"v{VERSION}": "commit"}) == {f"v{VERSION}": "commit"}

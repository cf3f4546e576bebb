"""Older releases are found from an empty history on."""

from pathlib import Path

import pytest

from tests import history
from tests.history import commit_all, git


def found(root: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(history, "ROOT", root)
    return list(history.releases.__wrapped__())


def test_releases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = tmp_path / "versions.yml"
    versions.write_text("template: 0.1.0\n", "utf-8")
    assert found(tmp_path, monkeypatch) == [], "no repository"
    git(tmp_path, "init", "--quiet")
    assert found(tmp_path, monkeypatch) == [], "no commit"
    commit_all(tmp_path, "first")
    assert found(tmp_path, monkeypatch) == [], "today's version is no older release"
    for version in ("0.1.1", "0.10.0", "1.0.0"):
        versions.write_text(f"template: {version}\n", "utf-8")
        commit_all(tmp_path, version)
        (tmp_path / "other").write_text(version, "utf-8")
        commit_all(tmp_path, "more")
    assert found(tmp_path, monkeypatch) == ["v0.1.0", "v0.1.1", "v0.10.0"]
    git(tmp_path, "tag", "v0.10.0", "HEAD~2")
    git(tmp_path, "tag", "v0.2.0", "HEAD~4")
    git(tmp_path, "tag", "nightly")
    assert found(tmp_path, monkeypatch) == ["v0.2.0", "v0.10.0"], "tags, once there are some"


def test_an_older_commit_is_extracted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    (root / "template").mkdir(parents=True)
    (root / "template/Größe.md").write_text("then\n", "utf-8")
    git(root, "init", "--quiet")
    commit_all(root, "then")
    (root / "template/Größe.md").write_text("now\n", "utf-8")
    monkeypatch.setattr(history, "ROOT", root)
    history.extract("HEAD", tmp_path / "out")
    assert (tmp_path / "out/template/Größe.md").read_text("utf-8") == "then\n"

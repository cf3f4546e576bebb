"""Renders every example once for all tests."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.render import EXAMPLES, copy_template, render


@pytest.fixture(autouse=True)
def own_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers alone decide what is rendered, whatever index this machine is set to."""
    monkeypatch.delenv("PACKAGE_INDEX", raising=False)


@pytest.fixture(scope="session")
def projects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One rendered project per file of examples/. Tests only read them."""
    made = {}
    for name, answers in EXAMPLES.items():
        made[name] = tmp_path_factory.mktemp("examples") / name
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("PACKAGE_INDEX", raising=False)
            render(made[name], answers)
    return made


@pytest.fixture(params=sorted(EXAMPLES))
def variant(request: pytest.FixtureRequest, projects: dict[str, Path]) -> Path:
    """Each rendered example in turn; its name is the folder's."""
    return projects[request.param]


@pytest.fixture
def github(tmp_path: Path) -> dict[str, str]:
    """Environment in which github.com/org/ml-template is a local repository: this working tree, released as v9.8.7."""
    repository = tmp_path / "hub/org/ml-template.git"
    repository.mkdir(parents=True)
    copy_template(repository)
    config = tmp_path / "gitconfig"
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": str(config), "GIT_CONFIG_NOSYSTEM": "1"}
    environment |= {"HOME": str(tmp_path / "home"), "USERPROFILE": str(tmp_path / "home")}
    environment |= {"COPIER_CACHE_DIR": str(tmp_path / "cache")}
    for arguments in (
        ["config", "--file", str(config), f"url.{(tmp_path / 'hub').as_uri()}/.insteadOf", "https://github.com/"],
        ["config", "--file", str(config), "user.name", "Tester"],
        ["config", "--file", str(config), "user.email", "tester@example.com"],
        ["init", "--quiet", "."],
        ["add", "--all", "--force"],
        ["commit", "--quiet", "--message", "release"],
        ["tag", "v9.8.7"],
    ):
        subprocess.run(["git", *arguments], cwd=repository, env=environment, check=True)
    return environment

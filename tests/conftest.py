"""Renders every example once for all tests."""

from pathlib import Path

import pytest

from tests.render import EXAMPLES, render


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

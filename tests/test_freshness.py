"""`nox -s freshness` and the project's `nox -s lock`, against a real index with small wheels."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import freshness
from tests.package_index import add_wheel, serve
from tests.render import render

ANY = "py3-none-any.whl"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """For Python 3.10 and 3.11: the default index at /simple, the frameworks' at /whl/... and /paddle."""
    root = tmp_path / "index"
    for name, version in (
        ("torch", "2.13.0"),
        ("torchvision", "0.28.0"),
        ("paddlepaddle", "3.3.1"),
        ("rich", "1.0"),
        ("rich", "2.0"),
    ):
        add_wheel(root / "simple", f"{name}-{version}-{ANY}")
    for python in ("cp310-cp310", "cp311-cp311"):
        for build in ("cpu", "cu130"):
            add_wheel(root / "whl" / build, f"torch-2.13.0+{build}-{python}-linux_x86_64.whl")
            add_wheel(root / "whl", f"torch-2.13.0+{build}-{python}-linux_x86_64.whl")
        add_wheel(root / "paddle", f"paddlepaddle_gpu-3.3.1-{python}-linux_x86_64.whl", ["rich"])
    (root / "hub/org/torch/tags/there").mkdir(parents=True)
    freshness.fetch.cache_clear()
    for name in ("UV_FIND_LINKS", "PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    with serve(root) as address:
        monkeypatch.setenv("UV_DEFAULT_INDEX", f"{address}/simple")
        monkeypatch.setenv("UV_NO_CONFIG", "1")
        monkeypatch.setattr(freshness, "HUB", f"{address}/hub")
        yield address


def matrix(address: str) -> dict[str, Any]:
    """A small versions.yml, all of it true."""
    torch = {"status": "stable", "image": "org/torch:there"}
    return {
        "python": {"minimum": "3.10", "newest": {"lightning": "3.11", "paddle": "3.11"}},
        "builds": {
            "lightning": {
                "cpu": {"status": "stable", "index": f"{address}/whl/cpu"},
                "13.0": {**torch, "index": f"{address}/whl/cu130", "find_links": f"{address}/whl/cu130/torch/"},
            },
            "paddle": {"cpu": {"status": "stable"}, "13.0": {"status": "stable", "index": f"{address}/paddle/"}},
        },
        "bad": {"torch": {"<2.10": "CVE"}},
        "packages": {
            "lightning": {"cpu": ["torch==2.13.0"], "gpu": ["torch==2.13.0"]},
            "paddle": {"cpu": ["paddlepaddle==3.3.1"], "gpu": ["paddlepaddle-gpu==3.3.1"]},
            "tracker": {"none": []},
            "task": {},
            "extras": {"serving": []},
            "common": ["rich==2.0"],
        },
    }


def states(versions: dict[str, Any]) -> dict[str, str]:
    return {row.what: row.state for row in freshness.rows(versions)}


def test_a_true_matrix(index: str) -> None:
    assert states(matrix(index)) == {
        "pins": "current",
        "list of torch's builds": "current",
        "lightning, default index": "resolved",
        "paddle, default index": "resolved",
        "lightning + paddle, default index": "resolved",
        "lightning, cpu": "resolved",
        "lightning, 13.0": "resolved",
        "lightning, 13.0, mirror": "there",
        "org/torch:there": "there",
        "paddle, 13.0": "resolved",
    }


def test_an_old_pin_is_stale(index: str) -> None:
    versions = matrix(index)
    versions["packages"]["common"] = ["rich==1.0"]
    assert states(versions)["rich==1.0"] == "stale"


def test_a_pin_that_does_not_exist_fails(index: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    versions = matrix(index)
    versions["packages"]["common"] = ["rich==9.0"]
    found = states(versions)
    assert found["paddle, default index"] == found["paddle, 13.0"] == "FAILED"
    file = tmp_path / "versions.yml"
    file.write_text(yaml.safe_dump(versions), "utf-8")
    assert freshness.main(file) == 1
    assert "rich==9.0" in capsys.readouterr().out


def test_a_python_without_wheels_fails(index: str) -> None:
    versions = matrix(index)
    versions["python"]["newest"]["paddle"] = "3.12"
    rows = {row.what: row for row in freshness.rows(versions)}
    assert rows["paddle, 13.0"].state == "FAILED"
    assert rows["paddle, 13.0"].detail.endswith("no paddlepaddle-gpu==3.3.1 for Python 3.12")


def test_a_missing_image_and_an_unlisted_build(index: str) -> None:
    versions = matrix(index)
    versions["builds"]["lightning"]["12.6"] = versions["builds"]["lightning"].pop("13.0")
    versions["builds"]["lightning"]["12.6"]["image"] = "org/torch:gone"
    rows = {row.what: row for row in freshness.rows(versions)}
    assert rows["org/torch:gone"].state == "FAILED"
    assert rows["list of torch's builds"] == ("list of torch's builds", "stale", "not in versions.yml: 13.0")


def test_what_cannot_be_reached_is_not_passed(index: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = matrix("http://127.0.0.1:9")  # the discard port: nobody listens
    versions["packages"]["common"] = []
    found = states(versions)
    assert {found[what] for what in ("lightning, cpu", "lightning, 13.0", "paddle, 13.0")} == {"unreachable"}
    assert found["lightning, default index"] == "resolved"
    file = tmp_path / "versions.yml"
    file.write_text(yaml.safe_dump(versions), "utf-8")
    assert freshness.main(file) == 0
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_NO_CACHE", "1")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    assert states(versions)["paddle, default index"] == "unreachable"


def run(*command: str, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, encoding="utf-8", check=False)


def test_lock_has_every_hash_and_the_index_lines(index: str, tmp_path: Path) -> None:
    project = tmp_path / "project"
    render(project, {"framework": "paddle"})
    wheel = tmp_path / "index/simple/rich" / f"rich-2.0-{ANY}"
    add_wheel(tmp_path / "index/simple", f"typer-1.0-{ANY}", ["rich"])
    (project / "requirements-cpu.txt").write_text(f"--extra-index-url {index}/whl/cpu\n\ntyper==1.0\n", "utf-8")
    done = run(sys.executable, "-m", "nox", "--no-venv", "-s", "lock", cwd=project)
    assert done.returncode == 0, done.stderr
    text = (project / "requirements-cpu.lock").read_text("utf-8")
    assert text.startswith(f"--extra-index-url {index}/whl/cpu\n")
    assert "nox -s lock -- cpu" in text
    assert text.count(index) == 1, "only the address that the requirements name"
    assert f"rich==2.0 \\\n    --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}" in text
    done = run(sys.executable, "-m", "nox", "--no-venv", "-s", "sbom", cwd=project)
    assert done.returncode == 0, done.stderr
    bill = json.loads((project / "requirements-cpu.cdx.json").read_text("utf-8"))
    assert bill["bomFormat"] == "CycloneDX"
    listed = {part["purl"]: part["externalReferences"][0]["hashes"][0]["content"] for part in bill["components"]}
    assert listed.keys() == {"pkg:pypi/rich@2.0", "pkg:pypi/typer@1.0"}
    assert listed["pkg:pypi/rich@2.0"] == hashlib.sha256(wheel.read_bytes()).hexdigest()
    install = ["pip", "install", "--dry-run", "--require-hashes", "--target", str(tmp_path / "site"), "-r"]
    again = run("uv", *install, "requirements-cpu.lock", cwd=project)
    assert again.returncode == 0, again.stderr
    add_wheel(tmp_path / "index/simple", wheel.name, ["typer"])  # another file of the same name
    install.remove("--dry-run")
    refused = run("uv", *install, "requirements-cpu.lock", cwd=project, env={**os.environ, "UV_NO_CACHE": "1"})
    assert refused.returncode != 0
    assert "hash mismatch" in refused.stderr.lower()

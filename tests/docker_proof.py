"""Prove the two stages of a project by taking them: `nox -s setup` on this machine, then training in containers.

python -m tests.docker_proof               # a Lightning and a Paddle project
python -m tests.docker_proof lightning     # one of them

DOCKER_ENGINE   a script that makes an engine for this run: `start DIR`, `env DIR` (prints exports), `stop DIR`
DOCKER_HOST     otherwise; where neither it nor a local engine answers, the containers are skipped
PIP_FIND_LINKS  a folder of wheels for the builds, which get it over HTTP, as a build can't see folders of this machine
LD_LIBRARY_PATH folders that the containers get as well
"""

import argparse
import base64
import contextlib
import functools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from tests.history import commit_all, git
from tests.render import RENDERING, ROOT, render

VERSIONS = yaml.safe_load((ROOT / "versions.yml").read_text("utf-8"))
SLIM = f"python:{VERSIONS['python']['docker']}-slim"
COMPOSE = ["docker", "compose", "-f", "deploy/docker-compose.yml", "-f", "proof.yml"]
UID, GID = 4321, 4322  # that no machine has
OWNER = {"HOST_UID": str(UID), "HOST_GID": str(GID)}
PORTS = {"tensorboard": "TENSORBOARD_PORT", "mlflow": "MLFLOW_PORT"}
SECRET = "swordfish-7f3a"
TRACKERS = {"lightning": "tensorboard", "paddle": "mlflow"}
KILL = "import os; [os.kill(int(p), 9) for p in os.listdir('/proc') if p.isdigit() and int(p) not in (1, os.getpid())]"

# A grey PNG of one pixel.
PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg==")

DOCTOR = """import json, dataclasses
from src.kit.hardware import check_containers, detect
print(json.dumps([dataclasses.asdict(check) for check in check_containers(detect())]))"""

# The system's own Python gets the framework, whatever environment python3 is.
BASE = """FROM {slim}
ARG PIP_FIND_LINKS
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1
RUN pip --python "$(realpath "$(command -v python3)")" install --no-cache-dir {framework}
"""


@dataclass
class Proof:
    """One rendered project, and what was proven of it."""

    framework: str
    tracker: str
    project: Path
    rows: list[list[str]] = field(default_factory=list)
    failed: bool = False

    def step(self, name: str, check: Callable[[], Any]) -> bool:
        """Run one check and print its result and time."""
        print(f"--- {self.framework}: {name}", flush=True)
        started = time.perf_counter()
        try:
            shown = check()
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            shown, self.failed = f"FAILED: {' '.join(str(error).split())}", True
        self.rows.append([self.framework, name, f"{time.perf_counter() - started:.1f}", str(shown or "ok")])
        return not self.failed

    def call(self, *command: Any, **environment: str) -> str:
        """Run a command in the project as its user would type it; its output, which an error ends with."""
        words = [str(word) for word in command]
        given = {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "PYTHONPATH")}
        done = subprocess.run(
            words,
            cwd=self.project,
            env=given | environment,
            text=True,
            timeout=1500,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert done.returncode == 0, f"{' '.join(words)} gave {done.returncode}: {done.stdout[-1500:]}"
        return done.stdout

    def compose(self, *arguments: str, **environment: str) -> str:
        return self.call(*COMPOSE, *arguments, **environment)

    def runs(self) -> list[Path]:
        return sorted((self.project / "outputs").glob("*/run.json"))


def main(argv: list[str]) -> int:
    """Prove the named frameworks' projects, or both; 1 where something failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("frameworks", nargs="*", metavar="lightning|paddle")
    names = parser.parse_args(argv).frameworks or ["lightning", "paddle"]
    with tempfile.TemporaryDirectory() as folder, engine() as found, wheels() as links:
        proofs = [Proof(name, TRACKERS[name], Path(folder, name)) for name in names]
        with ThreadPoolExecutor() as pool:  # a build uses one core, and health checks none
            list(pool.map(functools.partial(prove, links=links if found else None), proofs))
    rows = [row for proof in proofs for row in proof.rows]
    print("\n".join(f"| {' | '.join(row)} |" for row in [["project", "step", "s", ""], ["---"] * 4, *rows]))
    if not found:
        print("No container was tried: set DOCKER_HOST to an engine, or DOCKER_ENGINE to a script that can start one.")
    bad = sum("FAILED" in row[-1] for row in rows)
    print(f"containers: {len(rows) - bad} passed, {bad} failed" + (f", {len(proofs)} skipped" if not found else ""))
    return 1 if bad else 0


def prove(proof: Proof, links: dict[str, str] | None) -> None:
    """Render the project and take both stages, the second if there is an engine (`links`)."""
    answers = {"framework": proof.framework, "tracker": proof.tracker}
    with RENDERING:
        render(proof.project, {**answers, "project_name": f"Proof {proof.framework}"})
    proof.step("nox -s setup", functools.partial(local_stage, proof))
    if links is not None:
        try:
            container_stage(proof, links)
        finally:
            clean_up(proof)


def local_stage(proof: Proof) -> None:
    """The first stage, as the README says it, and a training in what it made."""
    proof.call(sys.executable, "-m", "nox", "-s", "setup")
    python = proof.project / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    proof.call(python, "scripts/train.py", "data=digits", "trainer.max_epochs=1")
    imported = "from src import load_config; print(load_config().seed)"
    subprocess.run([python, "-c", imported], cwd=proof.project / "docs", check=True)
    shutil.rmtree(proof.project / "outputs")
    shutil.rmtree(proof.project / ".venv")


def container_stage(proof: Proof, links: dict[str, str]) -> None:
    """The second stage: each step needs the ones before."""
    prepare(proof, links)
    _ = (
        proof.step("hadolint", functools.partial(lint, proof))
        and proof.step("doctor", functools.partial(doctor, proof))
        and proof.step("build train", functools.partial(build, proof, "train"))
        and proof.step("nothing private in the image", functools.partial(private, proof))
        and proof.step("run train: one epoch", functools.partial(train_once, proof))
        and proof.step("up --wait until healthy", functools.partial(up, proof))
        and proof.step("kill, see it resume, stop", functools.partial(kill, proof))
        and (
            proof.framework == "paddle"  # the image is the same for both
            or proof.step("export, up -d serve, predict, stop", functools.partial(serve, proof))
        )
        and proof.step("another user", functools.partial(other_user, proof))
        and proof.step("run shell: tests", functools.partial(shell, proof))
        and proof.step("GPU image on another base", functools.partial(gpu, proof, links))
    )


def prepare(proof: Proof, links: dict[str, str]) -> None:
    """Put what only this test needs into files next to the project's own."""
    git(proof.project, "init", "--quiet")
    commit_all(proof.project, "made")
    settings = {**OWNER, "TOKEN": SECRET, "CPUS": "1.5", "MEMORY": "6g", PORTS[proof.tracker]: str(free_port())}
    settings["SERVE_PORT"] = str(free_port())
    settings["PIP_CONFIG_FILE"] = str(proof.project / "pip.conf")
    text = "".join(f"{key}={value}\n" for key, value in settings.items())
    (proof.project / "deploy" / ".env").write_text(text, "utf-8")
    (proof.project / "pip.conf").write_text(f"[global]\ntimeout = 77\n# {SECRET}\n", "utf-8")
    for name in ("password.txt", "src/secret.pem", "src/models/.env", "scripts/id_rsa", "src/account.json"):
        (proof.project / name).write_text(SECRET, "utf-8")
    services = yaml.safe_load((proof.project / "deploy/docker-compose.yml").read_text("utf-8"))["services"]
    libraries = [folder for folder in os.environ.get("LD_LIBRARY_PATH", "").split(":") if folder]
    own: dict[str, Any] = {"volumes": [f"{folder}:{folder}:ro" for folder in libraries]}
    own |= {"environment": {"LD_LIBRARY_PATH": ":".join(libraries)}} if libraries else {}
    build = {"network": "host", "args": links}
    override = {name: {**own, "build": build} for name in services if name != "folders"}
    swapped = {"BASE": f"proof-{proof.framework}-base", "REQUIREMENTS": "requirements-cpu.txt"}
    override["train-gpu"] = {**own, "build": {**build, "args": {**links, **swapped}}, "deploy": "RESET"}
    text = yaml.safe_dump({"services": override}).replace("RESET", "!reset null")  # there need not be a GPU
    (proof.project / "proof.yml").write_text(text, "utf-8")


def lint(proof: Proof) -> None:
    proof.call("hadolint", *(f"deploy/{kind}/Dockerfile" for kind in ("cpu", "gpu", "serving")))


def doctor(proof: Proof) -> str:
    """The project's doctor finds this engine and its Compose."""
    found = json.loads(proof.call(sys.executable, "-c", DOCTOR))
    checks = {check["name"]: check for check in found}
    assert checks["Docker"]["status"] == checks["Compose"]["status"] == "ok", checks
    return f"Docker {checks['Docker']['detail']}, Compose {checks['Compose']['detail']}"


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
        return port


def build(proof: Proof, service: str) -> str:
    """Build a service's image with compose; its size."""
    proof.compose("build", service)
    return f"{size(image(proof, service))} MB"


def image(proof: Proof, service: str) -> str:
    compose = yaml.safe_load((proof.project / "deploy/docker-compose.yml").read_text("utf-8"))
    name: str = compose["services"][service]["image"]
    return name


def inspect(name: str) -> dict[str, Any]:
    inspected = subprocess.run(["docker", "image", "inspect", name], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(inspected.stdout)[0]
    return found


def size(name: str) -> int:
    return int(inspect(name)["Size"] // 10**6)


def private(proof: Proof) -> None:
    """Neither the project's secrets nor what the build knew of indexes are in the image or its history."""
    name = image(proof, "train")
    history = proof.call("docker", "history", "--no-trunc", name)
    assert "FIND_LINKS" not in history and "INDEX_URL" not in history, history
    held = proof.call("docker", "run", "--rm", "--entrypoint", "find", name, "/app", "-type", "f")
    assert "scripts/train.py" in held and "src/configs/config.yaml" in held, held
    assert not re.search(r"password|\.env|secret|id_rsa|account|\.git/(config|objects|logs|index)", held), held
    grep = ["sh", "-c", f"! grep -rqs {SECRET} /app /etc /root /tmp /home"]
    labels = inspect(name)["Config"]["Labels"]
    assert labels["org.opencontainers.image.title"] == name.partition(":")[0], labels
    proof.call("docker", "run", "--rm", "--user", "root", "--entrypoint", grep[0], name, *grep[1:])


def train_once(proof: Proof) -> str:
    """As the README types it: overrides pass, the results are the host user's, the file system is read-only."""
    said = proof.compose("run", "--rm", "train", "data=digits", "trainer.max_epochs=1", "optimizer.lr=0.01")
    [run] = [path.parent for path in proof.runs()]
    if hasattr(os, "getuid"):
        report = (run / "report.html").stat()
        assert (report.st_uid, report.st_gid) == (UID, GID), "the results belong to another user"
    commit = json.loads((run / "run.json").read_text("utf-8"))["git_commit"]
    assert commit == git(proof.project, "rev-parse", "HEAD").strip(), f"the run records commit {commit}"
    limits = (
        f"test $(id -u):$(id -g) = {UID}:{GID} && ! touch /app/x && ! touch /venv/x && touch outputs/x && rm outputs/x"
    )
    limits += " && (! python deploy/keep_training.py --is-healthy) && echo $CUDA_VISIBLE_DEVICES"
    shown = proof.compose("run", "--rm", "--entrypoint", "sh", "train", "-c", limits, CUDA_VISIBLE_DEVICES="0,1")
    assert shown.endswith("\n0,1\n"), shown
    accuracy: float = json.loads((run / "evaluation-test.json").read_text("utf-8"))["accuracy"]
    assert "report:" in said and accuracy > 0.5, said[-1500:]
    shutil.rmtree(run)
    return f"accuracy {accuracy:.3f}"


def up(proof: Proof) -> str:
    """In the background, with the tracker's page, until both are healthy."""
    proof.compose("--profile", "cpu", "up", "-d", "--wait", TRAIN="data=digits trainer.max_epochs=1000")
    states = proof.compose("--profile", "cpu", "ps", "--format", "{{.Service}} {{.Health}}")
    assert sorted(states.split("\n")[:-1]) == sorted([f"{proof.tracker} healthy", "train healthy"]), states
    settings = (proof.project / "deploy" / ".env").read_text("utf-8")
    container = proof.compose("--profile", "cpu", "ps", "--quiet", "train").strip()
    limits = proof.call("docker", "inspect", "--format", "{{.HostConfig.NanoCpus}} {{.HostConfig.Memory}}", container)
    assert limits.split() == ["1500000000", str(6 * 2**30)], limits
    port = re.search(rf"^{PORTS[proof.tracker]}=(\d+)$", settings, re.M)
    with urllib.request.urlopen(f"http://127.0.0.1:{port and port[1]}", timeout=60) as page:
        assert page.status == 200
    return ", ".join(states.split("\n")[:-1])


def kill(proof: Proof) -> str:
    """Kill the training as the kernel does when memory is short: Docker restarts it, and it goes on."""
    [run] = [path.parent for path in proof.runs()]
    wait_until(lambda: len(epochs(run)) >= 3, "three epochs")
    before = len(epochs(run))
    proof.compose("--profile", "cpu", "exec", "train", "python", "-c", KILL)
    wait_until(lambda: "--resume" in proof.compose("--profile", "cpu", "logs", "train"), "the resumption")
    resumed = len(epochs(run))  # more than `before`: the training went on until the signal arrived
    wait_until(lambda: len(epochs(run)) >= resumed + 2, "two more epochs")
    proof.compose("--profile", "cpu", "stop", "train")
    code = proof.compose("--profile", "cpu", "ps", "--all", "--format", "{{.ExitCode}}", "train").strip()
    status = json.loads((run / "run.json").read_text("utf-8"))["status"]
    assert (code, status) == ("143", "interrupted"), f"stopped with {code}, and the run is {status}"
    proof.compose("--profile", "cpu", "down")
    done = epochs(run)
    assert done == list(range(1, len(done) + 1)), f"epochs {done}"
    assert len(proof.runs()) == 1, "a new run was begun"
    shutil.rmtree(run)
    return f"killed after {before} epochs, stopped after {len(done)} with {code}, one run"


def serve(proof: Proof) -> str:
    """Export in the training's image, and predict with the service, which has no framework and may write nothing."""
    proof.compose("run", "--rm", "train", "data=digits", "trainer=debug")
    [run] = [path.parent for path in proof.runs()]
    proof.compose("run", "--rm", "--entrypoint", "python", "train", "scripts/export.py", "--format", "onnx")
    started = time.perf_counter()
    proof.compose("--profile", "serve", "up", "-d", "--wait", "serve")
    took = time.perf_counter() - started
    settings = (proof.project / "deploy" / ".env").read_text("utf-8")
    port = re.search(r"^SERVE_PORT=(\d+)$", settings, re.M)
    sent = {"images": [base64.b64encode(PIXEL).decode()]}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port and port[1]}/predict", json.dumps(sent).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        [found] = json.loads(answer.read())["predictions"]
    assert found["class"] in "0123456789", found
    limits = f"test $(id -u):$(id -g) = {UID}:{GID} && ! touch /app/x && ! touch outputs/x"
    limits += " && ! python -c 'import torch' && ! python -c 'import paddle'"
    proof.compose("--profile", "serve", "exec", "serve", "sh", "-c", limits)
    proof.compose("--profile", "serve", "stop", "serve")
    code = proof.compose("--profile", "serve", "ps", "--all", "--format", "{{.ExitCode}}", "serve").strip()
    assert code == "143", f"stopped with {code}"
    proof.compose("--profile", "serve", "down")
    shutil.rmtree(run)
    return f"{size(image(proof, 'serve'))} MB, up in {took:.1f} s"


def other_user(proof: Proof) -> str:
    """Another uid rebuilds without copying the packages, and is told whose folder it may not write to."""
    name, packages = image(proof, "train"), "COPY /venv /venv"
    before = inspect(name)["RootFS"]["Layers"]
    started = time.perf_counter()
    proof.compose("build", "train", HOST_UID="1000", HOST_GID="1000")
    took = time.perf_counter() - started
    kept = [layer for layer in inspect(name)["RootFS"]["Layers"] if layer in before]
    sizes = proof.call("docker", "history", "--format", "{{.CreatedBy}}", name).splitlines()[::-1]
    above = [made for made in sizes if made.startswith(("RUN", "COPY", "WORKDIR"))]
    assert any(packages in made for made in above), sizes
    done = subprocess.run(
        [*COMPOSE, "run", "--rm", "train", "data=digits", "trainer=debug"],
        cwd=proof.project,
        env={**os.environ, "HOST_UID": "1000", "HOST_GID": "1000"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode and f"write HOST_UID={UID} and HOST_GID={GID} into deploy/.env" in said, said[-1500:]
    return f"rebuilt in {took:.1f} s, {len(kept)} of {len(before)} layers kept"


def epochs(run: Path) -> list[int]:
    """The epochs in metrics.jsonl, as far as its last whole line."""
    file = run / "metrics.jsonl"
    lines = file.read_text("utf-8").split("\n")[:-1] if file.exists() else []
    return [json.loads(line)["epoch"] for line in lines]


def wait_until(reached: Callable[[], bool], what: str, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, f"{what} did not come in {seconds:.0f} s"
        time.sleep(1)


def shell(proof: Proof) -> str:
    """The image of the devcontainer holds the checks' tools and sees the project."""
    proof.compose("build", "shell")
    make_wheel(proof.project / "tiny_tool-1.0-py3-none-any.whl")
    commands = "pip install --no-index ./tiny_tool-1.0-py3-none-any.whl && python -c 'import tiny_tool'"
    commands += " && python -m pytest -q -p no:cacheprovider tests/test_config.py"
    said = proof.compose("run", "--rm", "-T", "shell", "sh", "-c", commands)
    assert "passed" in said, said
    return f"{size(image(proof, 'shell'))} MB"


def make_wheel(path: Path) -> None:
    """A package with nothing but a name, for pip to install."""
    info = "tiny_tool-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("tiny_tool.py", "")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-tool\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "tiny_tool.py,,\n")


def gpu(proof: Proof, links: dict[str, str]) -> str:
    """The GPU Dockerfile with a base that holds the framework's CPU build, as the publisher's holds the CUDA build."""
    base = f"proof-{proof.framework}-base"
    packages = VERSIONS["packages"][proof.framework]["cpu"]
    framework = next(line for line in packages if line.startswith(("torch==", "paddlepaddle==")))
    inline = proof.project / "base.Dockerfile"
    inline.write_text(BASE.format(slim=SLIM, framework=framework), "utf-8")
    found = [f"--build-arg={key}={value}" for key, value in links.items()]
    proof.call("docker", "build", "--network=host", *found, "-t", base, "-f", inline, ".")
    proof.compose("build", "train-gpu")
    name = framework.split("==")[0].removesuffix("paddle")
    where = proof.compose(
        "run", "--rm", "--entrypoint", "python", "train-gpu", "-c", f"import {name}; print('from', {name}.__file__)"
    )
    assert "from /usr" in where, f"the base's framework was installed again: {where}"
    proof.compose("run", "--rm", "train-gpu", "data=digits", "trainer=debug")
    return f"{size(image(proof, 'train-gpu')) - size(base)} MB over its base"


def clean_up(proof: Proof) -> None:
    """Leave no container, network or image of this test."""
    command = [*COMPOSE, "--profile", "*", "down", "--volumes", "--rmi", "local", "--timeout", "3"]
    subprocess.run(command, cwd=proof.project, check=False, capture_output=True)
    names = [image(proof, service) for service in ("train", "shell", "train-gpu", "serve")]
    subprocess.run(
        ["docker", "image", "rm", "-f", *names, f"proof-{proof.framework}-base"], check=False, capture_output=True
    )


@contextlib.contextmanager
def engine() -> Iterator[bool]:
    """Whether Docker answers; where DOCKER_ENGINE names a script, its engine runs while the block does."""
    script = os.environ.get("DOCKER_ENGINE")
    if not script:
        answers = shutil.which("docker") and subprocess.run(["docker", "version"], capture_output=True, check=False)
        yield bool(answers and answers.returncode == 0)
        return
    folder = tempfile.mkdtemp(prefix="e")  # short: a socket lies in it
    before = dict(os.environ)
    try:
        started = subprocess.run([script, "start", folder], check=False).returncode == 0
        if started:
            exports = f'eval "$("{script}" env "{folder}")" && env -0'
            printed = subprocess.run(["bash", "-c", exports], capture_output=True, text=True, check=True).stdout
            os.environ.update(line.split("=", 1) for line in printed.split("\0") if "=" in line)
        yield started
    finally:
        os.environ.clear()
        os.environ.update(before)
        subprocess.run([script, "stop", folder], check=False)
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def wheels() -> Iterator[dict[str, str]]:
    """Build arguments that let a build find the wheels of PIP_FIND_LINKS."""
    folder = os.environ.get("PIP_FIND_LINKS") or os.environ.get("UV_FIND_LINKS", "")
    if not os.path.isdir(folder):
        yield {}
        return
    handler = functools.partial(QuietHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield {"PIP_FIND_LINKS": f"http://127.0.0.1:{server.server_address[1]}/"}
        server.shutdown()


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files without a line for each."""

    def log_message(self, *arguments: Any) -> None:
        pass


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main(sys.argv[1:]))

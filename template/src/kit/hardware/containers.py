"""Check what the containers of deploy/ need: Docker, Compose and, for a GPU, the NVIDIA Container Toolkit.

Training here needs none of them, so nothing of it fails the diagnosis.
"""

import shutil

from src.kit.hardware.environment import Check, release
from src.kit.hardware.hardware import Hardware
from src.kit.hardware.probe import SystemProbe

COMPOSE = (2, 24)  # the first that takes `env_file: [{path: .env, required: false}]`
TIMEOUT_S = 5.0


def check_containers(hardware: Hardware, probe: SystemProbe | None = None) -> list[Check]:
    """Ask Docker for its engine, its Compose and its GPU runtime, the last one on Linux with an NVIDIA GPU only."""
    probe = probe or SystemProbe(TIMEOUT_S)
    engine = probe.run(["docker", "version", "--format", "{{.Server.Version}}"])
    if engine is None:
        return [Check("Docker", "ok", "not installed: only the containers of deploy/ need it")]
    if engine.code != 0:
        fix = "Start it (`sudo systemctl start docker`); if it runs, you lack rights: `sudo usermod -aG docker $USER`."
        return [Check("Docker", "warn", "installed, but its engine does not answer", fix)]
    checks = [Check("Docker", "ok", engine.output.strip()), check_compose(probe)]
    nvidia = any(gpu.vendor == "nvidia" for gpu in hardware.gpus)
    return [*checks, check_toolkit(probe)] if nvidia and probe.system == "Linux" else checks


def check_compose(probe: SystemProbe) -> Check:
    """Check that `docker compose` is there and new enough."""
    answer = probe.run(["docker", "compose", "version", "--short"])
    version = answer.output.strip().removeprefix("v") if answer and answer.code == 0 else ""
    if release(version) >= COMPOSE:
        return Check("Compose", "ok", version)
    oldest = ".".join(map(str, COMPOSE))
    fix = f"Install docker-compose-plugin {oldest} or newer; docker-compose, with a hyphen, is another program."
    return Check("Compose", "warn", f"{version} is older than {oldest}" if version else "missing", fix)


def check_toolkit(probe: SystemProbe) -> Check:
    """Check that containers can get the GPU: the engine lists NVIDIA's runtime, or finds its hook."""
    answer = probe.run(["docker", "info", "--format", "{{json .Runtimes}}"])
    if (answer and '"nvidia"' in answer.output) or shutil.which("nvidia-container-runtime-hook"):
        return Check("NVIDIA Container Toolkit", "ok", "containers can use the GPU")
    fix = (
        "Install nvidia-container-toolkit, run `sudo nvidia-ctk runtime configure --runtime=docker`, restart Docker:"
        " until then train-gpu ends with 'could not select device driver'."
    )
    return Check("NVIDIA Container Toolkit", "warn", "missing, so no container can use the GPU", fix)

"""Create `.venv` with nox, using nothing but Python, and restart the command in it.

noxfile.py imports this if nox is not installed. It never installs into the system's Python, which many distributions
forbid (PEP 668).
"""

import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ["nox", "uv"]


def restart() -> None:
    """Run this command again with the Python of `.venv`, and exit with its code."""
    environment = ROOT / ".venv"
    python = environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if Path(sys.prefix) == environment:
        sys.exit("Cannot import nox from .venv: delete that folder and start again.")
    if not python.exists():
        venv.create(environment, with_pip=True, clear=True)
    missing = subprocess.run([python, "-c", "import nox, uv"], capture_output=True, check=False).returncode
    if missing:
        print(f"Installing {' and '.join(PACKAGES)} into {environment}", flush=True)
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES], check=True
        )
    # nox finds uv on PATH only; it creates environments ten times faster than pip
    path = os.pathsep.join([str(python.parent), os.environ.get("PATH", "")])
    sys.exit(subprocess.run([python, *sys.argv], check=False, env={**os.environ, "PATH": path}).returncode)

"""Make `.venv` with nox in it, from nothing but Python, and start the command again from there.

`python noxfile.py -s demo` comes here when nox is not installed. Nothing is ever installed into the system's Python,
which many distributions forbid (PEP 668).
"""

import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ["nox", "uv"]


def restart() -> None:
    """Run this command again with `.venv`'s Python, and leave with its exit code."""
    environment = ROOT / ".venv"
    python = environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if Path(sys.prefix) == environment:
        sys.exit("nox cannot be imported from .venv: delete that folder and start again.")
    if not python.exists():
        venv.create(environment, with_pip=True, clear=True)
    missing = subprocess.run([python, "-c", "import nox, uv"], capture_output=True, check=False).returncode
    if missing:
        print(f"Installing {' and '.join(PACKAGES)} into {environment}", flush=True)
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES], check=True
        )
    # uv is found on PATH only, and makes environments ten times faster than pip
    path = os.pathsep.join([str(python.parent), os.environ.get("PATH", "")])
    sys.exit(subprocess.run([python, *sys.argv], check=False, env={**os.environ, "PATH": path}).returncode)

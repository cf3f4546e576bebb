"""Check this machine and this environment, and say what to use and what to fix.

    python scripts/doctor.py              # tables
    python scripts/doctor.py --json       # for other programs
    python scripts/doctor.py --refresh    # query the GPUs again instead of reading .hardware.json

Runs without any package installed. Exits with 1 if training can't start.
"""

import argparse
import io
import json
import sys
from importlib.util import find_spec
from pathlib import Path

if sys.version_info < (3, 10):  # noqa: UP036 - an older Python gets a sentence, not a syntax error
    sys.exit(f"error: this is Python {sys.version.split()[0]}; create an environment with Python 3.10 or newer.")

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from src.kit.errors import run_main  # noqa: E402
from src.kit.hardware import (  # noqa: E402
    Diagnosis,
    check_containers,
    check_environment,
    detect,
    recommend,
    required_cuda,
    show_plain,
    show_rich,
)


def main(argv: list[str]) -> None:
    """Print the diagnosis and exit with 1 if training can't start."""
    parser = argparse.ArgumentParser(
        description="Shows what this machine can do and whether this environment can train on it."
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--refresh", action="store_true", help="query the GPUs again instead of reading .hardware.json")
    options = parser.parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a Windows code page may lack letters of a GPU's name
    hardware = detect(refresh=options.refresh)
    checks = [*check_environment(hardware, ROOT), *check_containers(hardware)]
    diagnosis = Diagnosis(hardware, recommend(hardware, required_cuda(ROOT)), checks)
    if options.json:
        print(json.dumps(diagnosis.to_dict(), indent=2))
    elif sys.stdout.isatty() and find_spec("rich"):
        show_rich(diagnosis)
    else:
        show_plain(diagnosis)
    sys.exit(0 if diagnosis.can_train else 1)


if __name__ == "__main__":
    run_main(main)

"""Look at this machine and this environment, and say what to use and what to mend.

    python scripts/doctor.py              # tables
    python scripts/doctor.py --json       # for machines
    python scripts/doctor.py --refresh    # ask the GPUs again instead of reading .hardware.json

Needs nothing installed. The exit code is 1 when training could not start.
"""

import argparse
import io
import json
import sys
from importlib.util import find_spec
from pathlib import Path

if sys.version_info < (3, 10):  # noqa: UP036 - an older Python must read a sentence, not a syntax error
    sys.exit(f"error: this is Python {sys.version.split()[0]}; make an environment with Python 3.10 or newer.")

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from src.kit.config import run_main  # noqa: E402
from src.kit.hardware import (  # noqa: E402
    Diagnosis,
    check_environment,
    detect,
    recommend,
    required_cuda,
    show_plain,
    show_rich,
)


def main(argv: list[str]) -> None:
    """Print the diagnosis and leave with 1 when training could not start."""
    parser = argparse.ArgumentParser(
        description="What this machine can do, and whether this environment can train on it."
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--refresh", action="store_true", help="ask the GPUs again, whatever .hardware.json holds")
    options = parser.parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a Windows code page lacks letters that a GPU's name may hold
    hardware = detect(refresh=options.refresh)
    diagnosis = Diagnosis(hardware, recommend(hardware, required_cuda(ROOT)), check_environment(hardware, ROOT))
    if options.json:
        print(json.dumps(diagnosis.to_dict(), indent=2))
    elif sys.stdout.isatty() and find_spec("rich"):
        show_rich(diagnosis)
    else:
        show_plain(diagnosis)
    sys.exit(0 if diagnosis.can_train else 1)


if __name__ == "__main__":
    run_main(main)

"""Check a data set: unreadable and odd files, copies, leaks between splits, class balance, annotations.

    python scripts/validate_data.py data=image_folder data.root=photos
    python scripts/validate_data.py data=image_folder data.root=photos --quarantine
    python scripts/validate_data.py data=image_folder data.root=photos --restore

Writes an HTML page with thumbnails of the problems and a JSON file. Files move only with --quarantine. The exit code is
1 if there are errors, else 0.
"""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.kit.errors import UserError, refuse_url, run_main


def main(argv: list[str]) -> None:
    """Check `cfg.data`, or undo the quarantine of its folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="configuration, as for training")
    parser.add_argument("--quarantine", action="store_true", help="move files with errors to ROOT/.quarantine/TIME")
    parser.add_argument("--restore", action="store_true", help="move everything in ROOT/.quarantine back")
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="HTML page (default: outputs/data-report-NAME/report.html)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="JSON file (default: next to the page)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="threads (default: one per core)")
    options = parser.parse_intermixed_args(argv)
    if options.workers < 1:
        raise UserError(f"--workers={options.workers} must be at least 1.")
    for option in ("report", "json"):
        refuse_url(getattr(options, option) or "", f"--{option}=")
    if options.restore and options.quarantine:
        raise UserError("--quarantine moves files away and --restore moves them back: choose one of them.")
    from src.kit.config import load_config

    cfg = load_config(options.overrides)
    from src.kit.checks import check_data, restore_data  # NumPy and Pillow: not needed for --help

    if options.restore:
        restore_data(cfg)
    elif check_data(cfg, options.workers, options.report, options.json, options.quarantine):
        sys.exit(1)


if __name__ == "__main__":
    run_main(main)

"""Check a data set: files, sizes, modes, copies, leaks between splits, annotations.

    python scripts/validate_data.py data=image_folder data.root=photos
    python scripts/validate_data.py data=coco_folder data.root=data/mine --quarantine
    python scripts/validate_data.py data=coco_folder data.root=data/mine --restore

It writes a page with pictures of what is wrong and the same as JSON, and changes nothing unless it is asked to. The
exit code is 1 when there are errors, 0 when there are only warnings.
"""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.kit.config import UserError, load_config, run_main


def main(argv: list[str]) -> None:
    """Check `cfg.data`, or undo the quarantine of its folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="the configuration, as for training")
    parser.add_argument("--quarantine", action="store_true", help="move files with errors to ROOT/.quarantine/TIME")
    parser.add_argument("--restore", action="store_true", help="put everything back from ROOT/.quarantine")
    parser.add_argument("--report", type=Path, metavar="FILE", help="the page; outputs/data-report-NAME/report.html")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="the same for programs; beside the page, ending in .json"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="threads; one a core unless given")
    options = parser.parse_intermixed_args(argv)
    if options.workers < 1:
        raise UserError(f"--workers={options.workers} must be at least 1.")
    if options.restore and options.quarantine:
        raise UserError("--quarantine moves files away and --restore moves them back: choose one of them.")
    cfg = load_config(options.overrides)
    from src.kit.checks import check_and_report, put_back  # NumPy and Pillow: not needed for --help

    if options.restore:
        put_back(cfg)
    elif check_and_report(cfg, options):
        sys.exit(1)


if __name__ == "__main__":
    run_main(main)

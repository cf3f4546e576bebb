"""List runs with their test scores and what differs between their configurations, the best ones first.

    python scripts/runs.py                                              # all runs in outputs/, trials and folds too
    python scripts/runs.py outputs/FOLDER --sort optimizer.lr           # of one folder; --sort -KEY turns it round
    python scripts/runs.py --where data=digits --where status=finished  # KEY=VALUE, with * and ? in the value
    python scripts/runs.py --page                                       # runs.html: the table and the curves

KEY is a score (accuracy), a key of the configuration (optimizer.lr, model), status, epochs, duration_s or started.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.kit.errors import UserError, run_main


def main(argv: list[str]) -> None:
    """Print the table of `[FOLDER] [--sort KEY] [--where KEY=VALUE ...] [--page]`."""
    if "--help" in argv or "-h" in argv:
        sys.stdout.write(__doc__ or "")
        return
    from src.kit.comparison import columns, compare, find_runs, keep, print_table, sort_runs, write_comparison

    folder, sort, conditions, page = take_options(argv)
    runs = sort_runs(keep(find_runs(folder), conditions), sort)
    named = [key.partition("=")[0] for key in conditions] + ([sort.removeprefix("-")] if sort else [])
    shown = columns(runs, named)
    print_table(compare(runs, shown))
    if page:
        written = write_comparison(folder, runs, shown, ", ".join(conditions))
        sys.stdout.write(f"page: {written}\n")


def take_options(argv: list[str]) -> tuple[Path, str | None, list[str], bool]:
    """Split the options off the folder, which is `outputs` unless given."""
    rest, folders, conditions, sort = list(argv), list[str](), list[str](), None
    while rest:
        option, equals, value = rest.pop(0).partition("=")
        if option in ("--sort", "--where"):
            value = value if equals else rest.pop(0) if rest else ""
            if not value:
                raise UserError(f"{option} needs {'a key' if option == '--sort' else 'KEY=VALUE'} behind it.")
            sort = value if option == "--sort" else sort
            conditions += [value] if option == "--where" else []
        elif option.startswith("-") and option != "--page":
            raise UserError(f"Unknown option {option!r}: use --sort KEY, --where KEY=VALUE or --page.")
        elif option != "--page":
            folders.append(option + equals + value)
    if len(folders) > 1:
        raise UserError(f"Name one folder, not {' and '.join(folders)}; --where KEY=VALUE chooses runs.")
    return Path(folders[0] if folders else "outputs"), sort, conditions, "--page" in argv


if __name__ == "__main__":
    run_main(main)

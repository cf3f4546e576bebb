"""Download, verify and unpack a data set:

    python scripts/download.py data=mnist
    python scripts/download.py data=cifar10 data.root=~/datasets/cifar10
    python scripts/download.py --stage debug        # a small one, to check that training runs
    python scripts/download.py --stage production   # the one to train on, chosen by this machine's GPU memory
    python scripts/download.py --stage info         # show the machine, its tier and which data sets are there
    python scripts/download.py --clean              # delete unfinished downloads

An interrupted download continues where it stopped. Behind a firewall, set the environment variable DATASET_MIRROR to a
folder or a base URL that holds the publisher's files under their own names.
"""

import shlex
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.kit.errors import UserError, refuse_url, run_main


def main(argv: list[str]) -> None:
    """Download `cfg.data`, or handle `--stage` or `--clean`."""
    from src.kit.config import help_text, load_config

    if "--help" in argv or "-h" in argv:
        sys.stdout.write(f"{__doc__}\n{help_text()}")
        return
    if "--clean" in argv:
        clean_up([argument for argument in argv if argument != "--clean"])
    elif "--stage" in argv:
        index = argv.index("--stage")
        set_up("".join(argv[index + 1 : index + 2]), argv[:index] + argv[index + 2 :])
    else:
        download(load_config(argv))


def download(cfg: Any) -> None:
    """Download `cfg.data` and print its folder, or where your own files belong."""
    from src.kit.catalog import dataset_specs, download_dataset  # slow: after the configuration has been checked

    name = cfg.data.name
    folder = download_dataset(cfg.data)
    if folder is not None:
        print(f"{name} is in {folder.resolve()}")
    elif name in dataset_specs() and dataset_specs()[name].access == "own":
        verb = "are" if Path(cfg.data.root).expanduser().exists() else "belong"
        print(f"{name} needs no download: your files {verb} in {cfg.data.root} (data.root).")
    else:
        print(f"{name} needs no download.")


def set_up(stage: str, argv: list[str]) -> None:
    """Download the data set that fits this machine for a stage, or show the machine and all data sets."""
    from src.kit.catalog import STAGES, auto_select_dataset
    from src.kit.config import load_config, unknown

    if stage not in (*STAGES, "info"):
        raise UserError(unknown("stage", stage, (*STAGES, "info")))
    if stage == "info":
        from src.kit.catalog import show_info

        show_info(argv)
        return
    if any(argument.startswith("data=") for argument in argv):
        raise UserError("--stage chooses the data set: leave out data=NAME or --stage.")
    selection = auto_select_dataset(load_config(argv).task, stage=stage)
    print(f"{selection.tier}: {selection.dataset}, since {selection.reason}.")
    download(load_config([*selection.arguments, *argv]))
    print(f"Train on it with:\n  python scripts/train.py {shlex.join([*selection.arguments, *argv])}")


def clean_up(argv: list[str]) -> None:
    """Delete unfinished downloads below `data/` and `data.root`."""
    from src.kit.config import load_config
    from src.kit.download import clean

    cfg = load_config(argv)
    refuse_url(cfg.data.get("root", ""), "data.root=")
    roots = {Path("data").resolve(), Path(cfg.data.get("root", "data")).expanduser().resolve()}
    freed = sum(clean(root) for root in sorted(roots))
    print(f"Freed {freed / 1e6:.1f} MB of unfinished downloads in {', '.join(map(str, sorted(roots)))}.")


if __name__ == "__main__":
    run_main(main)

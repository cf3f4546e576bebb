"""Fetch, verify and unpack a data set:

    python scripts/download.py data=mnist
    python scripts/download.py data=cifar10 data.root=~/datasets/cifar10
    python scripts/download.py --stage debug        # the small one that shows whether everything runs
    python scripts/download.py --stage production   # the one to train on, by the memory of this machine's GPUs
    python scripts/download.py --stage info         # the machine, its stage, and which data sets are there
    python scripts/download.py --clean              # delete what downloads left unfinished

An interrupted download continues where it stopped. On a machine behind a firewall set the environment variable
DATASET_MIRROR to a folder or a base URL that holds the publisher's files under their own names.
"""

import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from omegaconf import DictConfig

from src.kit.config import UserError, help_text, load_config, run_main, unknown


def main(argv: list[str]) -> None:
    """Download `cfg.data`, or do what `--stage` or `--clean` says."""
    if "--help" in argv or "-h" in argv:
        sys.stdout.write(f"{__doc__}\n{help_text()}")
        return
    if "--clean" in argv:
        empty_cache([argument for argument in argv if argument != "--clean"])
    elif "--stage" in argv:
        place = argv.index("--stage")
        set_up("".join(argv[place + 1 : place + 2]), argv[:place] + argv[place + 2 :])
    else:
        download(load_config(argv))


def download(cfg: DictConfig) -> None:
    """Download `cfg.data` and print where it is, or where your own files belong."""
    from src.kit.catalog import download_dataset, specs  # NumPy and Pillow: not needed for a misspelt key

    name = cfg.data.name
    folder = download_dataset(cfg.data)
    if folder is not None:
        print(f"{name} is in {folder.resolve()}")
    elif name in specs() and specs()[name].access == "own":
        there = "is" if Path(cfg.data.root).expanduser().exists() else "belongs"
        print(f"{name} needs no download: what is yours {there} in {cfg.data.root} (data.root).")
    else:
        print(f"{name} needs no download.")


def set_up(stage: str, argv: list[str]) -> None:
    """Download the data set that this machine gets for a stage, or show what there is."""
    from src.kit.catalog import STAGES, auto_select_dataset

    if stage not in (*STAGES, "info"):
        raise UserError(unknown("stage", stage, (*STAGES, "info")))
    if stage == "info":
        from src.kit.catalog import show_info

        show_info(argv)
        return
    if any(argument.startswith("data=") for argument in argv):
        raise UserError("--stage chooses the data set itself: leave out data=NAME, or leave out --stage.")
    selection = auto_select_dataset(load_config(argv).task, stage=stage)
    print(f"{selection.tier}: {selection.dataset}, since {selection.reason}.")
    download(load_config([*selection.arguments, *argv]))
    print(f"Train on it with:\n  python scripts/train.py {shlex.join([*selection.arguments, *argv])}")


def empty_cache(argv: list[str]) -> None:
    """Empty the caches below `data/` and, where another one is configured, below `data.root`."""
    from src.kit.download import clean

    cfg = load_config(argv)
    roots = {Path("data").resolve(), Path(cfg.data.get("root", "data")).expanduser().resolve()}
    freed = sum(clean(root) for root in sorted(roots))
    print(f"Freed {freed / 1e6:.1f} MB of unfinished downloads in {', '.join(map(str, sorted(roots)))}.")


if __name__ == "__main__":
    run_main(main)

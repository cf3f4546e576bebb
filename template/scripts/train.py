"""Train a model.

    python scripts/train.py                                         # the defaults of src/configs/config.yaml
    python scripts/train.py trainer=debug                           # a few batches, seconds on a CPU
    python scripts/train.py model=resnet18 data=cifar10 trainer.max_epochs=1 trainer.limit_train_batches=5
    python scripts/train.py optimizer.lr=0.01 scheduler=cosine
    python scripts/train.py --from outputs/RUN                      # repeat a run exactly
    python scripts/train.py --resume outputs/RUN                    # continue after a crash
    python scripts/train.py --lr-find                               # draw the loss at rising rates, and name a rate
    python scripts/train.py trainer.folds=5                         # cross-validation: five runs and their mean

Options: --help (every key of the options you choose), --debug (tracebacks), --debugger (a debugger at an error),
--debugger 120 (and before step 120).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.kit.errors import UserError, run_main


def main(argv: list[str]) -> None:
    """Train, then evaluate on the validation and test splits, and write the report."""
    from src.kit.config import help_text, load_config, masked_keys

    if "--help" in argv or "-h" in argv:
        sys.stdout.write(f"{__doc__}\n{help_text(argv)}")
        return
    if "--lr-find" in argv:
        from src.kit.training import find_rate

        find_rate(load_config([word for word in argv if word != "--lr-find"]))
        return
    argv, repeated, resumed = take_options(argv)
    base = repeated or resumed
    if base:
        from src.kit.training import restore_config

        restore_config(base)
    needed = masked_keys(resumed / "config.yaml") if resumed else set()
    if resumed and (others := [word for word in argv if word.partition("=")[0] not in needed]):
        raise UserError(f"--resume continues with the run's own configuration: leave {others[0]!r} out.")
    cfg = load_config(argv, base=base / "config.yaml" if base else None)
    if cfg.trainer.folds:
        from src.kit.training import cross_validate

        cross_validate(cfg, resumed)
    else:
        from src.kit.memory import fit_to_machine
        from src.kit.training import train_run

        train_run(cfg, resumed, repeated, fit_to_machine)


def take_options(argv: list[str]) -> tuple[list[str], Path | None, Path | None]:
    """Split `--from RUN` and `--resume RUN` off the overrides."""
    options: dict[str, Path | None] = {"--from": None, "--resume": None}
    rest = list(argv)
    for option in options:
        if option in rest:
            position = rest.index(option)
            if position + 1 == len(rest):
                raise UserError(f"{option} needs a run folder, such as {option} outputs/RUN.")
            options[option] = Path(rest[position + 1])
            del rest[position : position + 2]
    return rest, options["--from"], options["--resume"]


if __name__ == "__main__":
    run_main(main)

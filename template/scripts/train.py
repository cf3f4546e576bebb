"""Train a model.

    python scripts/train.py                                         # the defaults of src/configs/config.yaml
    python scripts/train.py trainer=debug                           # a few batches, seconds on a CPU
    python scripts/train.py model=resnet18 data=cifar10 trainer.max_epochs=1 trainer.limit_train_batches=5
    python scripts/train.py framework=paddle optimizer.lr=0.01 scheduler=cosine
    python scripts/train.py --from outputs/RUN                      # repeat a run exactly
    python scripts/train.py --resume outputs/RUN                    # go on after a crash
    python scripts/train.py trainer.folds=5                         # cross-validation: five runs and their mean

Options: --help (every key), --debug (tracebacks).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from omegaconf import DictConfig

from src.kit.config import UserError, help_text, load_config, run_main


def main(argv: list[str]) -> None:
    """Train, then evaluate on the validation and test splits, and write the report."""
    if "--help" in argv or "-h" in argv:
        sys.stdout.write(f"{__doc__}\n{help_text()}")
        return
    argv, repeated, resumed = take_options(argv)
    base = repeated or resumed
    cfg = load_config(argv, base=base / "config.yaml" if base else None)
    if cfg.trainer.folds:
        from src.kit.training import cross_validate

        cross_validate(cfg, resumed)
    else:
        train(cfg, resumed, repeated)


def train(cfg: DictConfig, resumed: Path | None = None, repeated: Path | None = None) -> Path:
    """Run one training and return its folder; `resumed` is the run folder to go on in, `repeated` the one to repeat."""
    from src.kit.hardware import detect
    from src.kit.memory import fit_memory, fits_gpu
    from src.kit.run import Run, read_json
    from src.kit.training import backends as trainers
    from src.kit.training import compare, describe_splits, evaluate, find, refuse_other_data, write_splits

    checkpoint = find(resumed, "last") if resumed else None
    if resumed and read_json(resumed / "run.json").get("status") == "finished":
        raise UserError(
            f"{resumed} has finished: repeat it with --from {resumed}, or evaluate it with scripts/test.py."
        )
    splits = describe_splits(cfg)  # missing data is said before a framework is loaded
    if resumed:
        refuse_other_data(splits, resumed)
    said = ""
    if not resumed:
        # several GPUs have a process each, and only one process may try what fits
        cfg, said = fit_memory(cfg, detect(), fits_gpu if cfg.trainer.devices == 1 else None)
    backend = trainers.load(cfg.framework)
    with Run(cfg, resumed) as run:
        if said:
            run.log.warning(said)
        if run.main:
            write_splits(splits, run.path)
            if repeated and (changed := compare(splits, repeated)):
                run.log.warning("The samples differ from those of %s: %s.", repeated, ", ".join(changed))
        backend.fit(cfg, run, checkpoint)
        if run.main:
            run.update(status="finished", duration_s=run.seconds())
            evaluate(cfg, run.path, ["val", "test"])
            for picture in sorted((run.path / "pictures").glob("*.png")):
                run.tracker.log_picture(picture.stem, picture)
    return run.path


def take_options(argv: list[str]) -> tuple[list[str], Path | None, Path | None]:
    """Split `--from RUN` and `--resume RUN` off the overrides."""
    found: dict[str, Path | None] = {"--from": None, "--resume": None}
    rest = list(argv)
    for option in found:
        if option in rest:
            place = rest.index(option)
            if place + 1 == len(rest):
                raise UserError(f"{option} needs a run folder, such as {option} outputs/RUN.")
            found[option] = Path(rest[place + 1])
            del rest[place : place + 2]
    if found["--resume"] and rest:
        raise UserError(f"--resume goes on with the run's own configuration, so {rest[0]!r} must be left out.")
    return rest, found["--from"], found["--resume"]


if __name__ == "__main__":
    run_main(main)

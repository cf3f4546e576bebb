"""trainer.fast_dev_run, trainer.overfit_batches and trainer.profiler, and the presets that set them."""

import gc
import io
import json
import weakref
from pathlib import Path

import numpy as np
import pytest

from src.kit import errors
from src.kit.config import UserError, build_component, load_config
from src.kit.paddle import refuse_unsupported
from src.kit.run import Run, read_rows
from src.kit.training import Experiment, TrainingLoop, find_checkpoint, train_run
from src.kit.weights import load_weights
from tests.support import fit

BASE = ["model=small_cnn", "data=digits", "data.batch_size=16", "tracker=none"]


def test_fast_dev_run_shortens_everything():
    cfg = load_config(["trainer.fast_dev_run=true", "trainer.folds=5", "trainer.max_epochs=9", "tracker=tensorboard"])
    keys = cfg.trainer
    assert (keys.max_epochs, keys.folds, cfg.tracker.name) == (1, None, "none")
    assert (keys.limit_train_batches, keys.limit_val_batches, keys.limit_test_batches) == (1, 1, 1)
    assert load_config(["trainer.fast_dev_run=3"]).trainer.limit_val_batches == 3
    assert load_config(["debug=fdr"]).trainer.fast_dev_run is True
    assert load_config(["trainer.fast_dev_run=false"]).trainer.max_epochs == load_config([]).trainer.max_epochs


@pytest.mark.parametrize("framework", ["lightning", "paddle"])
def test_the_network_of_an_earlier_run_is_freed(tmp_path, framework, monkeypatch):
    """Folds and notebooks train several in one process, on one GPU."""
    networks, build = [], Experiment.build_network

    def noted(*args, **keys):
        network = build(*args, **keys)
        networks.append(weakref.ref(network))
        return network

    monkeypatch.setattr(Experiment, "build_network", noted)
    keys = [*BASE, f"framework={framework}", f"output_dir={tmp_path.as_posix()}", "trainer.fast_dev_run=true"]
    for _ in range(2):
        train_run(load_config(keys))
    gc.collect()
    assert len(networks) >= 2
    assert not [network for network in networks if network()]


@pytest.mark.parametrize("framework", ["lightning", "paddle"])
def test_overfitting_uses_the_same_batches_in_training_and_validation(tmp_path, framework):
    words = ["trainer=overfit", "data.augment=basic", "optimizer.lr=0.01", "trainer.max_epochs=12"]
    cfg = load_config([*BASE, *words, f"framework={framework}", f"output_dir={tmp_path.as_posix()}"])
    assert cfg.data.augment == "none"
    experiment = Experiment(cfg)
    first, again, val = (experiment.build_loader(kind) for kind in ("train", "train", "val"))
    again.set_epoch(7)
    for images, other, third in zip(first, again, val, strict=True):
        assert np.array_equal(images[0], other[0])
        assert np.array_equal(images[0], third[0])
    assert len(first) == 3
    labels = np.concatenate([batch[1] for batch in first])
    assert len(set(labels.tolist())) > 3, "the batches are a mixture of classes"
    with Run(cfg) as run:
        fit(cfg, run)
    rows = read_rows(run.path / "metrics.jsonl")
    assert rows[-1]["step"] == 36
    assert rows[-1]["val/accuracy"] > 0.9
    assert rows[-1]["train/loss"] < 0.3 * rows[0]["train/loss"]


def test_a_name_alone_does_not_choose_the_keys_of_a_component():
    cfg = load_config(["optimizer.name=sgd"])
    with pytest.raises(UserError, match=r"optimizer\.name=sgd has no optimizer\.betas: choose it by optimizer=NAME"):
        build_component("optimizer", cfg.optimizer, "lightning", [], fused=False)


def test_arguments_that_paddle_does_not_know_are_refused(tmp_path):
    words = ["framework=paddle", "trainer.extra.profiler=simple", f"output_dir={tmp_path.as_posix()}"]
    with pytest.raises(UserError, match=r"paddle\.Model\.fit does not know: profiler"):
        refuse_unsupported(load_config([*BASE, *words]))


def test_a_period_shorter_than_a_step_is_one_step():
    keys = {"name": "cosine_restarts", "period_epochs": 1e-300, "period_growth": 1.0}
    factor = build_component("scheduler", keys, "", total_steps=10, steps_per_epoch=5)
    assert factor(0) == factor(9) == 1.0


@pytest.mark.parametrize("framework", ["lightning", "paddle"])
def test_the_profile_lists_operations_and_a_debugger_opens_at_a_step(tmp_path, framework, monkeypatch, capsys):
    monkeypatch.setattr(errors, "STOPS", {3})
    monkeypatch.setattr("sys.stdin", io.StringIO("p type(self).__name__, self.loop.step_count\nc\n"))
    cfg = load_config([*BASE, "trainer=profile", f"framework={framework}", f"output_dir={tmp_path.as_posix()}"])
    with Run(cfg) as run:
        fit(cfg, run)
    text = Path(run.path / "profile.txt").read_text("utf-8")
    printed = capsys.readouterr().out
    assert printed.count("('RunCallback', 2)") == 1
    assert f"profile: {run.path / 'profile.txt'}" in printed
    assert "Perf Summary" not in printed
    assert "conv" in text
    assert "optimizer" in text.lower() or "adam" in text.lower()
    assert json.loads((run.path / "metrics.jsonl").read_text("utf-8"))["step"] == 22


@pytest.mark.parametrize("framework", ["lightning", "paddle"])
def test_frozen_layers_keep_weights_and_statistics_in_a_run(tmp_path, framework):
    words = [*BASE, f"framework={framework}", f"output_dir={tmp_path.as_posix()}", "trainer.limit_train_batches=3"]
    weights = []
    for freeze in (
        ["model.freeze=['0','1']", "optimizer.lr=1e-12"],
        ["model.freeze=['0','1']", "trainer.max_epochs=2"],
    ):
        cfg = load_config([*words, "trainer.max_epochs=1", "optimizer.weight_decay=0", *freeze])
        with Run(cfg) as run:
            fit(cfg, run)
        weights.append(load_weights(find_checkpoint(run.path, "last") / "model.safetensors")[0])
    start, end = weights
    frozen = {name for name in start if name.startswith(("0.", "1."))}
    assert any("running" in name for name in frozen)
    assert all(np.array_equal(start[name], end[name]) == (name in frozen) for name in start)


def test_a_loop_goes_on_with_an_epoch_that_other_processes_began(tmp_path):
    words = ["data.batch_size=64", "scheduler=cosine", "trainer.limit_train_batches=1.0", "trainer.max_epochs=1"]
    cfg = load_config([*BASE, *words, f"output_dir={tmp_path.as_posix()}"])
    experiment = Experiment(cfg)
    loaders = [experiment.build_loader("train", 0, ranks) for ranks in (2, 1, 3)]
    two, one, three = (TrainingLoop(experiment, Run(cfg), loader, list) for loader in loaders)
    two.load_state_dict(two.state_dict())
    two.start_epoch()
    two.batch = 5
    rates = [two.next_lr()]
    for before, after in ((two, one), (one, three)):
        after.load_state_dict(json.loads(json.dumps(before.state_dict())))
        after.start_epoch()
        assert after.draw_seed() != two.cfg.seed + 1, "no random numbers of the start again"
        rates.append(after.next_lr())
    assert (one.batches, one.batch) == (20, 10), "of 64 samples each"
    assert (three.batches, three.batch) == (7, 3), "10 x 64 of 1259 were over, and 619 are 4 x 3 x 64"
    assert len(list(three.loader)) == 4
    assert rates[0] == pytest.approx(rates[1])
    assert rates[2] == pytest.approx(rates[1], rel=0.25), "to a batch"
    old = {**two.state_dict(), "batch": 4, "batches": two.batches}  # as earlier versions wrote it
    del old["parts"]
    two.load_state_dict(old)
    assert (two.batch, two.resumed) == (4, True)
    with pytest.raises(UserError, match=r"an epoch of 10 batches, which are 20 now: go on with as many processes"):
        one.load_state_dict(old)
    one.load_state_dict(old | {"batch": 0})
    assert (one.batch, one.resumed) == (0, False)
    two.batch, two.epoch = 0, 1  # between two epochs
    three.load_state_dict(two.state_dict())
    three.start_epoch()
    assert (three.batch, len(list(three.loader))) == (0, 7)

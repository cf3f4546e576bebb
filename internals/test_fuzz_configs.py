"""A few of the odd configurations of fuzz_configs.py, which is run with a thousand now and then."""

import pytest

from fuzz_configs import fuzz, outcome


def test_odd_configurations_train_or_end_in_one_sentence(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # pretrained weights are not waited for
    outcomes = fuzz(40, start=5)
    assert not outcomes["failed"]
    assert outcomes["trained"] > 1
    assert outcomes["refused"] > 10


@pytest.mark.parametrize(
    ("framework", "words", "changed"),
    [
        ("lightning", ["data.batch_size=auto"], None),  # scripts/train.py chooses it
        ("lightning", ["data.batch_size=1"], None),  # batch normalisation at one position
        ("paddle", ["data.range=[null]"], None),
        ("paddle", [], ("data/digits.yaml", "name: {a: b}\n")),
        *[("paddle", [f"trainer.extra.{word}"], None) for word in ("num_iters=abc", "num_iters=0", "num_iters=true")],
        *[("paddle", [f"trainer.extra.{word}"], None) for word in ("epochs=3", "verbose=2", "save_dir=1")],
        *[("lightning", [f"trainer.extra.{word}"], None) for word in ("num_sanity_val_steps=abc", "max_time=5")],
        *[("lightning", [f"trainer.extra.{word}"], None) for word in ("check_val_every_n_epoch=2", "abc=1")],
        *[("lightning", [f"trainer.extra.{word}"], None) for word in ("callbacks=[1]", "limit_val_batches=0")],
    ],
)
def test_what_once_ended_in_a_traceback_ends_in_one_sentence(framework, words, changed):
    assert outcome(framework, words, changed) == "refused"


def test_arguments_that_the_framework_takes_reach_it():
    assert outcome("paddle", ["trainer.extra.num_iters=2"], None) == "trained"
    assert outcome("lightning", ["trainer.extra.limit_train_batches=0.5"], None) == "trained"

"""A few of the odd configurations of fuzz_configs.py, which is run with a thousand now and then."""

from fuzz_configs import fuzz


def test_odd_configurations_train_or_end_in_one_sentence(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # pretrained weights are not waited for
    outcomes = fuzz(40, start=5)
    assert not outcomes["failed"]
    assert outcomes["trained"] > 1
    assert outcomes["refused"] > 10

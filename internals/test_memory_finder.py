"""The search for a batch size, with a limit in place of a GPU."""

import pytest

from src.kit.config.compose import load_config
from src.kit.errors import UserError
from src.kit.memory.fit import find_batch, round_batch


def search(guess: int, limit: int, most: int = 10000) -> tuple[int, list[int]]:
    tried: list[int] = []

    def probe(batch: int) -> bool:
        tried.append(batch)
        return batch <= limit

    return find_batch(guess, probe, most), tried


@pytest.mark.parametrize("guess", [1, 2, 7, 24, 96, 512])
@pytest.mark.parametrize("off", [0.6, 0.8, 0.99, 1.0, 1.1, 1.3, 2.0])
def test_what_is_found_was_tried_and_three_trials_are_enough(guess: int, off: float) -> None:
    limit = max(1, int(guess * off))
    found, tried = search(guess, limit)
    assert found in tried
    assert found <= limit
    assert len(tried) <= 3
    assert found >= 0.5 * min(limit, guess)


def test_a_low_estimate_is_raised() -> None:
    assert search(64, 90)[0] == 80


def test_never_more_than_there_is() -> None:
    assert search(64, 1000, most=64) == (64, [64])


def test_nothing_fits() -> None:
    with pytest.raises(UserError, match="at every batch size"):
        search(64, 0)


def test_sizes_that_tensor_cores_like() -> None:
    assert [round_batch(size) for size in (1, 15, 17, 100, 511, 1000)] == [1, 15, 16, 96, 504, 960]


@pytest.mark.parametrize("key", ["data.batch_size=0", "trainer.on_oom=maybe"])
def test_keys_are_checked(key: str) -> None:
    with pytest.raises(UserError, match="must be"):
        load_config([key])

"""The largest batch that really fits, from an estimate and at most three trials."""

from collections.abc import Callable

from src.kit.config import UserError

PROBES = 3
UP, DOWN = 1.25, 0.75


def find_batch(guess: int, probe: Callable[[int], bool], most: int) -> int:
    """Try the estimate, then once or twice larger, or smaller ones.

    Args:
        guess: the largest batch by estimate.
        probe: trains a step with a batch size and says whether it fitted the GPU.
        most: no batch is larger.

    Raises:
        UserError: none of three batches fits.
    """
    batch, best = guess, 0
    for _ in range(PROBES):
        if probe(batch):
            if batch < guess:  # a larger one has failed
                return batch
            best, batch = batch, min(most, round_batch(max(batch + 1, round(batch * UP))))
        elif best or batch == 1:
            break
        else:
            batch = round_batch(min(batch - 1, round(batch * DOWN)))
        if batch == best:
            break
    if not best:
        raise UserError(
            f"Training ran out of GPU memory at every batch size that was tried, from {guess} down: other programs may "
            "hold memory there, so free it, or set data.batch_size to a small number."
        )
    return best


def round_batch(batch: int) -> int:
    """Down to a multiple of 8 from 16 on, which tensor cores like, and of 64 from 512 on."""
    step = 64 if batch >= 512 else 8 if batch >= 16 else 1
    return batch // step * step

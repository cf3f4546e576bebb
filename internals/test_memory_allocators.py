"""The models of the allocators, against results of their published rules worked out by hand."""

import pytest

from src.kit.memory.allocators import (
    MIB,
    Allocator,
    PaddleAllocator,
    Recorder,
    ScaledTrace,
    TorchAllocator,
    Trace,
    replay,
    simulate_allocator,
)


@pytest.mark.parametrize(
    ("requests", "reserved"),
    [
        ([1], 2 * MIB),  # small requests share segments of 2 MiB
        ([MIB, MIB], 2 * MIB),
        ([MIB, MIB, 1], 4 * MIB),
        ([MIB + 1], 20 * MIB),  # larger ones share 20 MiB
        ([9 * MIB, 9 * MIB], 20 * MIB),
        ([10 * MIB], 10 * MIB),  # from 10 MiB on a segment is rounded up to 2 MiB
        ([11 * MIB], 12 * MIB),
    ],
)
def test_torch_segments(requests: list[int], reserved: int) -> None:
    allocator = TorchAllocator()
    for size in requests:
        allocator.allocate(size)
    assert allocator.reserved == reserved


def test_torch_keeps_a_large_block_whole_where_less_than_a_mebibyte_would_be_left() -> None:
    allocator = TorchAllocator()
    allocator.release(allocator.allocate(12 * MIB))
    assert allocator.allocate(11 * MIB).size == 12 * MIB
    assert allocator.reserved == 12 * MIB


def test_paddle_takes_what_is_asked_for_and_cuts_from_the_end() -> None:
    allocator = PaddleAllocator()
    allocator.release(allocator.allocate(1000))
    assert allocator.reserved == 1024
    assert allocator.allocate(256).offset == 768
    allocator.allocate(769)
    assert allocator.reserved == 2048


@pytest.mark.parametrize("kind", [TorchAllocator, PaddleAllocator])
def test_neighbours_merge_in_any_order(kind: type[Allocator]) -> None:
    for order in ((0, 1, 2), (2, 0, 1), (1, 0, 2)):
        allocator = kind()
        allocator.release(allocator.allocate(18 * MIB))
        blocks = [allocator.allocate(6 * MIB) for _ in range(3)]
        for index in order:
            allocator.release(blocks[index])
        assert allocator.allocate(18 * MIB).size == 18 * MIB
        assert allocator.reserved == 18 * MIB


def test_replay_finds_the_peak_and_what_it_is_made_of() -> None:
    recorder = Recorder()
    recorder.allocate(512, "parameters")
    first = recorder.allocate(1024)
    recorder.free(first)
    recorder.allocate_briefly(4096, "workspace")
    recorder.allocate(1 << 30, "host")
    peak = simulate_allocator(recorder.trace(), "lightning")
    assert (peak.allocated, peak.reserved) == (512 + 4096, 2 * MIB)
    assert peak.kinds["workspace"] == 4096
    assert not peak.kinds.get("host")


def test_scratch_counts_where_it_takes_more_and_where_it_takes_less() -> None:
    """Cut by what comes after scratch of 30 MiB, its block does not fit the next 30 MiB; without, 11 MiB do."""
    recorder = Recorder()
    recorder.allocate_briefly(30 * MIB, "scratch")
    recorder.allocate(11 * MIB)
    assert simulate_allocator(recorder.trace(), "lightning").reserved == 30 * MIB
    first = recorder.allocate(30 * MIB)
    recorder.allocate_briefly(512, "scratch")
    trace = recorder.trace()
    assert [replay(trace, "lightning", kinds).reserved // MIB for kinds in ((), ("scratch",))] == [62, 42]
    recorder.free(first)
    recorder.allocate(19 * MIB)  # in either, the rest of a block of 30 MiB is free
    peak = simulate_allocator(recorder.trace(), "lightning")
    assert (peak.reserved, peak.kinds) == (62 * MIB, {"activations": 42 * MIB})


def test_growth_is_a_straight_line_for_each_block() -> None:
    traces = [Trace(((0, 100), (1, 10 * batch), (1, -1)), {0: "parameters", 1: "activations"}) for batch in (2, 4)]
    assert ScaledTrace((2, 4), traces).at(32).events == ((0, 100), (1, 320), (1, -1))


def test_consecutive_frees_are_sorted() -> None:
    recorder = Recorder()
    blocks = [recorder.allocate(1) for _ in range(3)]
    for block in reversed(blocks):
        recorder.free(block)
    assert recorder.trace().events[3:] == ((0, -1), (1, -1), (2, -1))

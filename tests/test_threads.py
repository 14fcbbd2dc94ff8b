"""How many of Torch's threads work, and work that is spread over several threads."""

import threading

import pytest
import torch

from warpdvr.runtime.threads import one_thread, run_ranges


def test_one_thread_inside_and_as_many_as_before_outside():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 3
        with pytest.raises(KeyError), one_thread():
            raise KeyError
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_ranges_are_run_once_each_and_side_by_side():
    """With a barrier that only opens when three ranges are being worked on at the same time."""
    barrier, ranges = threading.Barrier(3, timeout=20), []

    def task(first: int, end: int) -> None:
        barrier.wait()
        ranges.append((first, end))

    run_ranges(task, [0, 2, 5, 5, 9, 10, 12], 3)
    assert sorted(ranges) == [(0, 2), (2, 5), (5, 5), (5, 9), (9, 10), (10, 12)]


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_in_a_range_is_raised(threads: int) -> None:
    def task(first: int, end: int) -> None:
        if first == 4:
            raise ValueError(f"range {first} to {end}")

    with pytest.raises(ValueError, match="range 4 to 6"):
        run_ranges(task, [0, 2, 4, 6], threads)

"""How many of Torch's threads work, and work that is spread over several threads."""

import threading

import pytest
import torch

from warpdvr.runtime.threads import in_order, one_thread, run_ranges, workers


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


def test_kernels_keep_the_threads_that_torch_gives_up():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert workers() == 3
        with one_thread():
            assert (torch.get_num_threads(), workers()) == (1, 3)
            with one_thread():
                assert workers() == 3
        assert workers() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 3])
def test_results_come_in_order_and_are_worked_on_side_by_side(threads: int) -> None:
    before, barrier, inside = torch.get_num_threads(), threading.Barrier(threads, timeout=20), []

    def task(item: int) -> int:
        barrier.wait()
        inside.append(workers())
        return item * item

    torch.set_num_threads(threads)
    try:
        assert list(in_order(task, range(9))) == [i * i for i in range(9)]
        assert set(inside) == {1}  # no threads of threads
        with pytest.raises(ValueError, match="item 4"):
            list(in_order(lambda i: (_ for _ in ()).throw(ValueError(f"item {i}")) if i == 4 else i, range(6)))
    finally:
        torch.set_num_threads(before)

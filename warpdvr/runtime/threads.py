"""Limit Torch to one thread where that is faster, and spread other work over several."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import pairwise

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit Torch to one thread inside the block.

    Torch's threads wait for each other after every operation. For small operations several threads gain little (a step
    of a fit on two idle cores is 1.15 times as fast with two), and on a busy machine they are 10 times slower.
    """
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n)


def run_ranges(task: Callable[[int, int], None], bounds: Sequence[int], threads: int) -> None:
    """Call task(first, end) for all ranges between successive bounds, on several threads.

    Each thread takes the next range when it is free. For work that releases Python's global lock, such as the launch of
    a kernel.
    """
    ranges = iter(list(pairwise(bounds)))

    def work() -> None:
        for first, end in ranges:
            task(first, end)

    futures = [_pool(threads - 1).submit(work) for _ in range(threads - 1)]
    work()
    for future in futures:
        future.result()


@cache
def _pool(n: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n, thread_name_prefix="warpdvr")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork

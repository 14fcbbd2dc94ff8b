"""How threads share the CPU."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import pairwise

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep Torch on one thread inside of the block.

    Its threads wait for each other after every operation. Where operations are small that gains little (a fit's step on
    two idle cores: 1.15 times faster with two threads), and on a busy machine it costs a lot (10 times slower).
    """
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n)


def side_by_side(part: Callable[[int, int], None], cuts: Sequence[int], threads: int) -> None:
    """Run `part` on all stretches between the cuts; which of the threads is free takes the next.

    For work that lets go of Python's lock, such as a launch of a kernel.
    """
    waiting = iter(list(pairwise(cuts)))

    def work() -> None:
        for first, end in waiting:
            part(first, end)

    helping = [_helpers(threads - 1).submit(work) for _ in range(threads - 1)]
    work()
    for helper in helping:
        helper.result()


@cache
def _helpers(n: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n, thread_name_prefix="warpdvr")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_helpers.cache_clear)  # threads stay behind with the parent

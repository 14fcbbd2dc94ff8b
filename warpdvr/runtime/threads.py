"""Limit Torch to one thread where that is faster, and spread other work over several."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from itertools import pairwise
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")

_spread: ContextVar[int | None] = ContextVar("spread", default=None)


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit Torch's own operations to one thread inside the block; `workers` stay as many as they were.

    Torch's threads wait for each other after every operation. For small operations several threads gain little (a step
    of a fit on two idle cores is 1.15 times as fast with two), and on a busy machine they are 10 times slower.
    """
    n = torch.get_num_threads()
    token = _spread.set(workers())
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n)
        _spread.reset(token)


def workers() -> int:
    """Return over how many threads kernels and other long work are spread: as many as Torch has outside `one_thread`.

    These threads sleep while they wait, so that they do no harm on a busy machine.
    """
    return _spread.get() or torch.get_num_threads()


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


def in_order(task: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """Yield task(item) for all items in their order; `workers` threads are a few items ahead of what is taken."""
    n = workers()
    if n == 1:
        yield from map(task, items)
        return
    ahead: deque[Future[R]] = deque()
    for item in items:
        if len(ahead) > n:
            yield ahead.popleft().result()
        ahead.append(_pool(n).submit(task, item))
    for future in ahead:
        yield future.result()


@cache
def _pool(n: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n, thread_name_prefix="warpdvr", initializer=_spread.set, initargs=(1,))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork

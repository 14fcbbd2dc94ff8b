"""How threads share the CPU."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

import torch

A = TypeVar("A")
B = TypeVar("B")


def side_by_side(function: Callable[[A], B], parts: Sequence[A]) -> list[B]:
    """Return `function` of each part, computed at the same time, each on one thread of Torch.

    Torch and Warp let go of the interpreter while they compute, so two halves of a fit's step take 0.55 to 0.65 of the
    time of the whole on two cores, which Torch's own threads do not come near to. What each part computes does not
    depend on the others, so the result is the same on any number of cores.
    """
    if len(parts) < 2:
        return [function(part) for part in parts]
    return list(_crew(len(parts)).map(function, parts))


@cache
def _crew(n: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n, thread_name_prefix="warpdvr", initializer=torch.set_num_threads, initargs=(1,))


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

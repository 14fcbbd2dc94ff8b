"""How many of Torch's threads work together on the CPU."""

from collections.abc import Iterator
from contextlib import contextmanager

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

"""Reuse memory for gradients as large as a table: new pages take the system longer than filling them."""

import math
import weakref

import torch
from torch import Tensor

LARGE = 32 << 20
"""Tensors of at least this size use memory that is kept [byte]; the heap keeps smaller blocks by itself."""

MAX_FREE_BLOCKS = 2
"""Most free blocks that are kept for reuse."""

_free: list[bytearray] = []


def zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return zeros; a large tensor on a CPU reuses the memory of an earlier one that no longer exists."""
    size = math.prod(shape) * dtype.itemsize
    if size < LARGE or device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    fitting = next((i for i, block in enumerate(_free) if len(block) == size), None)
    block = bytearray(size) if fitting is None else _free.pop(fitting)
    view = memoryview(block)
    weakref.finalize(view, _keep, block).atexit = False
    return torch.frombuffer(view, dtype=dtype).zero_().view(shape)


def _keep(block: bytearray) -> None:
    _free.append(block)
    del _free[:-MAX_FREE_BLOCKS]

"""Memory for gradients as large as a table: handing out new pages takes the system longer than filling them."""

import math
import weakref

import torch
from torch import Tensor

LARGE = 32 << 20
"""Tensors of at least this size are made of memory that is kept [byte]; the heap keeps smaller ones by itself."""

KEPT = 2
"""Blocks that are kept for their next use."""

_free: list[bytearray] = []


def zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return zeros; a large tensor on a CPU lies where an earlier one was, which is free again when nobody has it."""
    size = math.prod(shape) * dtype.itemsize
    if size < LARGE or device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    fitting = next((i for i, block in enumerate(_free) if len(block) == size), None)
    block = bytearray(size) if fitting is None else _free.pop(fitting)
    shown = memoryview(block)
    weakref.finalize(shown, _keep, block).atexit = False
    return torch.frombuffer(shown, dtype=dtype).zero_().view(shape)


def _keep(block: bytearray) -> None:
    _free.append(block)
    del _free[:-KEPT]

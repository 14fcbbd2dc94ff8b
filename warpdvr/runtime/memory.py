"""How much memory one evaluation may take, and what becomes of it on a device that has less."""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

ON_CPU = 512 << 20
"""Memory for one evaluation on a CPU [byte], whose caches more would not fit into."""

SHARE = 0.25
"""Share of a GPU's free memory for one evaluation; a recorded gradient and estimates that are too low need the rest."""

NO_BLOCK = re.compile(r"failed to allocate .*\bcuda|CUBLAS_STATUS_ALLOC_FAILED", re.IGNORECASE)
"""How Warp and cuBLAS say that a device has no memory left, in a RuntimeError."""

T = TypeVar("T")


class OutOfMemory(torch.OutOfMemoryError):
    """A device has too little memory; the message is one sentence that says what to lower."""


def evaluation_memory(device: torch.device) -> int:
    """Return how much memory one evaluation may take [byte]: `ON_CPU`, or `SHARE` of what is free on a GPU.

    What Torch keeps for later use on the GPU, but does not use, counts as free.
    """
    if device.type != "cuda":
        return ON_CPU
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(SHARE * (torch.cuda.mem_get_info(device)[0] + kept))


def in_parts(evaluate: Callable[[Tensor], T], parts: Iterable[Tensor]) -> list[T]:
    """Return what `evaluate` returns for each part, in order; a part that a device has no memory for is halved.

    So are all after it. The results of a halved part are those of its rows in two or more.

    Args:
        evaluate: of rows of a tensor; evaluated again for fewer rows after it has failed.
        parts: the rows.

    Raises:
        RuntimeError: if there is no memory for a single row, as Torch or Warp says it.
    """
    waiting, results, most = list(parts)[::-1], [], 0
    while waiting:
        part = waiting.pop()
        if most and len(part) > most:
            waiting += part.split(most)[::-1]
            continue
        try:
            results.append(evaluate(part))
        except RuntimeError as error:
            if len(part) <= 1 or not lacks_memory(error):
                raise
        else:
            continue
        most = (len(part) + 1) // 2  # here, where no exception keeps the memory of the calls that it passed
        waiting.append(part)
    return results


@contextmanager
def out_of_memory(what: str, remedy: str) -> Iterator[None]:
    """Say in one sentence what to lower where a device has too little memory.

    Args:
        what: what has too little, such as "render".
        remedy: what to do.

    Raises:
        OutOfMemory: for an error of Torch or of Warp that says so.
    """
    try:
        yield
    except OutOfMemory:
        raise
    except RuntimeError as error:
        if not lacks_memory(error):
            raise
        raise OutOfMemory(f"{what}: the device is out of memory; {remedy}") from error


def lacks_memory(error: BaseException) -> bool:
    """Return whether an error says that a device has no memory left."""
    said = isinstance(error, RuntimeError) and NO_BLOCK.search(str(error)) is not None
    return said or isinstance(error, torch.OutOfMemoryError)

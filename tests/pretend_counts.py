"""Count what a GPU would be asked to do, by line: launches of Torch and Warp, synchronisations, copies.

    with pretend_cuda.active(), counting() as counts:
        render(field.to("cuda"), camera)
    print(counts.total("torch"), counts.total("warp"), counts.lines("sync"))

A Torch launch is an operation of ATen's that is no view; it may be several kernels (a sort) on a GPU.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

ROOT = Path(__file__).parents[1]
Kind = Literal["torch", "warp", "sync", "to gpu", "to cpu"]
"""Launches of either, waits of the CPU for the GPU, and copies between them, each of which waits as well."""

QUIET = {"_unsafe_view", "lift_fresh", "_local_scalar_dense", "set_", "resize_", "is_same_size"}
"""Operations without a launch, besides views, empty tensors and what has no elements."""

WAITING = {torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output}


@dataclass
class Counts:
    """What was counted, by kind, operation and line."""

    events: Counter[tuple[Kind, str, str]] = field(default_factory=Counter)
    """(kind, operation, "file:line" of this repository): how often."""

    def total(self, kind: Kind) -> int:
        """Return the number of all events of a kind."""
        return sum(n for (other, _, _), n in self.events.items() if other == kind)

    def lines(self, kind: Kind) -> list[tuple[str, int]]:
        """Return the lines with events of a kind, those with most first."""
        by_line: Counter[str] = Counter()
        for (other, _, line), n in self.events.items():
            by_line[line] += n if other == kind else 0
        return [(line, n) for line, n in by_line.most_common() if n]


_counting: list[Counts] = []


@contextmanager
def counting() -> Iterator[Counts]:
    """Count inside of the block; blocks may be nested."""
    counts = Counts()
    _counting.append(counts)
    try:
        yield counts
    finally:
        _counting.remove(counts)


def note(kind: Kind, operation: str) -> None:
    """Count an event at the line of this repository that is running."""
    if _counting:
        event = (kind, operation, _line())
        for counts in _counting:
            counts.events[event] += 1


def note_copy(kind: Literal["to gpu", "to cpu"], operation: str) -> None:
    """Count a copy between CPU and GPU; from pageable memory, as all here, it is waited for."""
    note(kind, operation)
    note("sync", operation)


def note_operation(func: Any, args: tuple[Any, ...], results: Iterable[Tensor]) -> None:
    """Count an operation of Torch on tensors of the GPU."""
    if not _counting:
        return
    outputs = list(results)
    name = func._overloadpacket.__name__
    if name == "index":  # tagged as if it always had a mask
        waits = _has_mask(args[1])
    else:
        waits = bool(WAITING & set(func.tags)) or _is_masked_store(name, args)
    if waits:
        note("sync", name)
    if name == "_local_scalar_dense":
        note("to cpu", name)
    empty = name.startswith(("empty", "new_empty")) or (bool(outputs) and not any(a.numel() for a in outputs))
    if not (func.is_view or torch.Tag.inplace_view in func.tags or name in QUIET or (empty and not waits)):
        note("torch", name)


def _has_mask(indices: Any) -> bool:
    return any(a is not None and a.dtype in (torch.bool, torch.uint8) for a in indices)


def _is_masked_store(name: str, args: tuple[Any, ...]) -> bool:
    """Whether `a[mask] = values`, which looks for the places first; with one value it is a fill, which does not."""
    return name in ("index_put", "index_put_", "_index_put_impl_") and _has_mask(args[1]) and args[2].numel() != 1


def _line() -> str:
    """Return the innermost line of this repository, except for those that pretend."""
    frame = sys._getframe(2)
    while frame.f_back is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(ROOT) and ".venv" not in path.parts and not path.name.startswith("pretend_"):
            return f"{path.resolve().relative_to(ROOT)}:{frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere"

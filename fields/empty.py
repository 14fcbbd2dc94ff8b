"""Answers of fields that cannot be asked for no points at all."""

from collections.abc import Callable
from typing import Any

from torch import Tensor


def answered(function: Callable[..., Any], *rows: Tensor | None) -> Any:
    """Return what a function of points says of n points; it may be one that cannot be asked for none.

    Such a function is asked for one point, whose answer is dropped: its result keeps its form and its graph.

    Args:
        function: takes tensors with a row for each point, and returns such tensors, or a tuple of them.
        rows: its arguments.
    """
    if any(row is not None and len(row) for row in rows):
        return function(*rows)
    try:
        return function(*rows)
    except Exception:  # whatever the code of others raises at no points
        answer = function(*(row if row is None else row.new_zeros(1, *row.shape[1:]) for row in rows))
    parts = answer if isinstance(answer, tuple) else (answer,)
    empty = tuple(part[:0] if isinstance(part, Tensor) else part for part in parts)
    return empty if isinstance(answer, tuple) else empty[0]

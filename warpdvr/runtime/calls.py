"""Calls that must work everywhere: inside of `torch.inference_mode()`, and for no points at all."""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from jaxtyping import Shaped
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def outside_inference(function: Callable[P, R]) -> Callable[P, R]:
    """Run a function as under `torch.no_grad()` where it is called in inference mode. A decorator.

    In inference mode nothing can be differentiated, and its tensors can never be used where autograd records.
    """

    @wraps(function)
    def outside(*arguments: P.args, **options: P.kwargs) -> R:
        if not torch.is_inference_mode_enabled():
            return function(*arguments, **options)
        with torch.inference_mode(False), torch.no_grad():
            return function(*arguments, **options)

    return outside


def ordinary(tensor: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
    """Return the tensor, or its copy if it was made in inference mode, so that autograd can use it."""
    if not tensor.is_inference():
        return tensor
    with torch.inference_mode(False):
        return tensor.clone()


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

"""Calls that must work inside of `torch.inference_mode()` too."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

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

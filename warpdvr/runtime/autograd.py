"""What Torch's `torch.autograd.Function` needs here: the type of its context, and derivatives that are refused."""

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class Context(Protocol):
    """The used part of the context of a `torch.autograd.Function`, which Torch leaves untyped."""

    saved_tensors: tuple[Tensor, ...]
    """The tensors from `save_for_backward`."""
    needs_input_grad: tuple[bool, ...]
    """Whether a gradient is needed, for each argument of `forward`."""

    def save_for_backward(self, *tensors: Tensor) -> None:
        """Keep tensors for `backward`."""

    def set_materialize_grads(self, value: bool) -> None:
        """Say whether gradients that are not there come to `backward` as zeros, as they do otherwise, or as None."""


def once_differentiable(x: Tensor, message: str) -> Tensor:
    """Return a tensor that has first derivatives only: second ones with respect to what it depends on raise.

    A gradient with `create_graph=True` alone does not raise, nor do derivatives by the vector that it was multiplied
    with, by which Torch computes products with Jacobians.

    Args:
        x: any tensor; returned as it is.
        message: the sentence of the RuntimeError.
    """
    if not (torch.is_grad_enabled() and x.requires_grad):
        return x
    first: Tensor = _Once.apply(x, message)  # type: ignore[no-untyped-call]
    return first


def zero_without_derivative(x: Tensor, order: int, message: str) -> Tensor:
    """Return a scalar 0 that depends on x, whose derivatives below `order` are 0 and of which that one raises."""
    zero: Tensor = _Refusal.apply(x, order, message)  # type: ignore[no-untyped-call]
    return zero


class _Once(torch.autograd.Function):
    """A tensor itself; its gradient carries a zero that refuses to be differentiated."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, message: str) -> Tensor:  # Torch's context has no type, and keeps the message
        ctx.message = message
        ctx.save_for_backward(x)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None]:
        if not torch.is_grad_enabled():
            return grad[0], None
        return grad[0] + zero_without_derivative(ctx.saved_tensors[0], 1, ctx.message), None


class _Refusal(torch.autograd.Function):
    """A zero whose derivative of a given order raises."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: int, message: str) -> Tensor:
        ctx.order, ctx.message = order, message
        ctx.save_for_backward(x)
        return x.new_zeros(())

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, None, None]:
        if ctx.order == 1:
            raise RuntimeError(ctx.message)
        if not torch.is_grad_enabled():
            return None, None, None
        (x,) = ctx.saved_tensors
        return zero_without_derivative(x, ctx.order - 1, ctx.message).expand_as(x), None, None

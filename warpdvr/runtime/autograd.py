"""What Torch hands to the two halves of an operator with a derivative of its own."""

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Context(Protocol):
    """The context of a `torch.autograd.Function`, as far as it is used here; Torch itself leaves it untyped."""

    saved_tensors: tuple[Tensor, ...]
    """What `save_for_backward` kept."""
    needs_input_grad: tuple[bool, ...]
    """Whether a gradient is wanted, for each argument of the forward half."""

    def save_for_backward(self, *tensors: Tensor) -> None:
        """Keep tensors for the backward half."""

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """Say that no gradient passes through these outputs."""

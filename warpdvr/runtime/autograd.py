"""The type of the context that Torch passes to a `torch.autograd.Function`."""

from typing import Protocol, runtime_checkable

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

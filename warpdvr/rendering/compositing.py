"""Composite what lies along rays: weights from opacities, and sums over them."""

from dataclasses import dataclass
from types import SimpleNamespace

import torch
import warp as wp
from jaxtyping import Float, Int
from torch import Tensor

from warpdvr.kernels.composite import kernels
from warpdvr.runtime.autograd import Context, once_differentiable
from warpdvr.runtime.launch import launch

ONCE = (
    "composite: second derivatives of what is composited along a ray are not provided; leave them out, or render with "
    "aggregate=HitPoint()"
)


@dataclass(frozen=True)
class Composited:
    """The sums over the samples of n rays, and the weights of m samples; all differentiable, once."""

    value: Float[Tensor, "n c"]
    """Sum of weight times value; 0 for a ray without samples."""
    left: Float[Tensor, " n"]
    """Transmittance behind the last sample: 1 minus the sum of the weights."""
    weight: Float[Tensor, " m"]
    """Share of each sample in the sums of its ray."""


def composite(first: Int[Tensor, " _"], opacity: Float[Tensor, " m"], value: Float[Tensor, "m c"]) -> Composited:
    """Composite samples front to back; in float32 or float64.

    Differentiable with respect to `opacity` and `value`; second derivatives raise a RuntimeError. Memory: nothing
    but the arguments is kept for the derivatives.

    Args:
        first: where the samples of each ray begin, and the number of all, int64; samples of a ray lie from near to far.
        opacity: of each sample, in [0, 1].
        value: of each sample.

    Example:
        >>> import torch
        >>> first, opacity = torch.tensor([0, 2]), torch.tensor([0.5, 0.5])
        >>> seen = composite(first, opacity, torch.tensor([[1.0], [3.0]]))
        >>> seen.value.tolist(), seen.left.tolist(), seen.weight.tolist()
        ([[1.25]], [0.25], [0.5, 0.25])
    """
    opacity, value = once_differentiable(opacity, ONCE), once_differentiable(value, ONCE)
    return Composited(*_Composite.apply(first, opacity, value))  # type: ignore[no-untyped-call]


class _Composite(torch.autograd.Function):
    """The kernels of `warpdvr.kernels.composite`, as a function of opacities and values."""

    @staticmethod
    def forward(
        ctx: Context, first: Int[Tensor, " _"], opacity: Float[Tensor, " m"], value: Float[Tensor, "m c"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        first, opacity, value = first.contiguous(), opacity.contiguous(), value.contiguous()
        n = len(first) - 1
        total, left, weight = value.new_empty(n, value.shape[1]), value.new_empty(n), torch.empty_like(opacity)
        launch(_kernels(value).forward, n, [first, opacity, value, weight], [total, left])
        ctx.save_for_backward(first, opacity, value)
        return total, left, weight

    @staticmethod
    def backward(ctx: Context, *grad: Tensor) -> tuple[None, Tensor, Tensor]:
        first, opacity, value = ctx.saved_tensors
        by_total, by_left, by_weight = (g.detach().contiguous() for g in grad)
        by_opacity, by_value = torch.empty_like(opacity), torch.empty_like(value)
        inputs = [first, opacity, value, by_weight, by_total, by_left]
        launch(_kernels(value).backward, len(first) - 1, inputs, [], state=[by_opacity, by_value])
        return None, by_opacity, by_value


def _kernels(value: Tensor) -> SimpleNamespace:
    return kernels(wp.float64 if value.dtype == torch.float64 else wp.float32)

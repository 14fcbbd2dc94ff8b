"""Implicit differentiation: the only place where a hit becomes differentiable."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from warpdvr.fields.gradient import value_and_gradient
from warpdvr.runtime.arguments import check_device
from warpdvr.runtime.autograd import Context, once_differentiable, zero_without_derivative

GRAZING = 1e-3
"""Least slope along a ray for its derivatives, as a fraction of |grad f|."""

ONCE = (
    "reattach: evaluates the field once, which gives first derivatives of ray lengths only; second ones come from "
    "render or warpdvr.rendering.surface.surface"
)
TWICE = "surface: third derivatives of ray lengths, points, normals and colours are not provided"


def reattach(
    f: Callable[[Float[Tensor, "k 3"]], Float[Tensor, " k"]],
    origin: Float[Tensor, "k 3"],
    direction: Float[Tensor, "k 3"],
    t: Float[Tensor, " k"],
    *,
    grazing: float = GRAZING,
) -> Float[Tensor, " k"]:
    """Return the ray lengths `t` unchanged in value, with the gradient of the surface that they lie on.

    With x0 = o + t0 d on the surface {f = 0}, the implicit function theorem gives dt = -df / (grad f . d), so that

        t = t0 - (f(x0) - f(x0).detach()) / (grad f(x0) . d).detach()

    has the right value and the right derivative with respect to everything that f depends on (weights, radius, codes)
    and to o and d, hence to camera poses (Niemeyer et al. 2020, eq. 10 and supplement; Yariv et al. 2020, eq. 3). The
    field is evaluated once. There is no gradient where the value has no slope, as in a piecewise constant field.

    Second derivatives need a second evaluation: `render` and `warpdvr.rendering.surface.surface` provide them, here
    they raise a RuntimeError.

    Args:
        f: the field's `value`.
        origin, direction: of the rays that hit; differentiable.
        t: ray lengths found by a solver [scene unit]; taken as constants.
        grazing: the slope along the ray is kept at least this fraction of |grad f| away from 0, with its sign, because
            the derivative for a ray that only grazes the surface is unbounded.

    Raises:
        ValueError: if the tensors are on different devices.
    """
    check_device("reattach", origin.device, "origin", direction=direction, t=t)
    if not torch.is_grad_enabled():
        return t
    return once_differentiable(attach(f, origin, direction, t, grazing).t, ONCE)


@dataclass(frozen=True)
class Attached:
    """Ray lengths with their first derivatives, and the constants that second ones need."""

    t: Float[Tensor, " k"]
    """Ray length [scene unit]; right to the first derivative."""
    slope: Float[Tensor, " k"]
    """The slope along the ray that was divided by."""
    grazes: Bool[Tensor, " k"]
    """Whether that is not the slope of the field, but a larger one or, where it is flat, none."""
    flat: Bool[Tensor, " k"]
    """Whether the value has no slope in any direction; t then has no derivative."""
    value: Float[Tensor, " k"]
    """The value at the hit, about 0; a constant."""
    gradient: Float[Tensor, "k 3"]
    """The field's gradient there; a constant."""


def attach(
    f: Callable[[Float[Tensor, "k 3"]], Float[Tensor, " k"]],
    origin: Float[Tensor, "k 3"],
    direction: Float[Tensor, "k 3"],
    t: Float[Tensor, " k"],
    grazing: float = GRAZING,
) -> Attached:
    """Return what `reattach` does; second derivatives are those of the expression there until `correct` adds theirs."""
    x = origin + t.detach().to(origin)[:, None] * direction
    value, gradient = value_and_gradient(f, x)
    along = (gradient * direction.detach()).sum(-1)
    steep = gradient.norm(dim=-1)
    flat = is_flat(gradient)
    min_slope = grazing * steep + torch.finfo(along.dtype).tiny
    slope = torch.where(along > 0, along.clamp_min(min_slope), along.clamp_max(-min_slope))
    slope = torch.where(flat, torch.inf, slope)
    t = t.detach().to(origin) - (value - value.detach()) / slope
    return Attached(t, slope, flat | (slope != along), flat, value.detach(), gradient)


def is_flat(gradient: Float[Tensor, "k 3"]) -> Bool[Tensor, " k"]:
    """Return where a field has no slope: where its gradient is 0, as in a piecewise constant field, or not finite."""
    steep = gradient.norm(dim=-1)
    flat: Tensor = ~((steep > 0) & steep.isfinite())
    return flat


def correct(
    attached: Attached, value: Float[Tensor, " k"], seen: Sequence[Float[Tensor, "k ..."]]
) -> list[Float[Tensor, "k ..."]]:
    """Return what was seen at the points x = o + t d, unchanged in value and first derivatives, with second ones.

    With t right to the first derivative, v = f(o + t d) is 0 to the first derivative, and a step of Newton's method

        t* = t - v / s,   s = grad f . d,

    is right to the second. So what is missing in t is delta = -v / s, and in anything that depends on t, delta times
    its derivative by t. All of these are 0, and so are their first derivatives: they come in where a gradient is
    itself recorded (`create_graph=True`). First derivatives are as they are without them, and cost nothing more. Rays
    that graze are left as they are. Third derivatives raise a RuntimeError.

    Args:
        attached: the ray lengths t, k of them.
        value: v, differentiable.
        seen: t itself, and whatever depends on it; differentiable.
    """
    inverse = torch.where(attached.grazes, 0, 1 / attached.slope)
    return [_Correction.apply(tensor, value, attached.t, inverse) for tensor in seen]  # type: ignore[no-untyped-call]


class _Correction(torch.autograd.Function):
    """A tensor that depends on t, with the derivative of the term that is missing in it where that is recorded.

    One for each tensor, so that a gradient by one of them does not walk through the graphs of the others.
    """

    @staticmethod
    def forward(
        ctx: Context,
        tensor: Float[Tensor, "k ..."],
        value: Float[Tensor, " k"],
        t: Float[Tensor, " k"],
        inverse: Float[Tensor, " k"],
    ) -> Float[Tensor, "k ..."]:
        ctx.save_for_backward(tensor, value, t, inverse)
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Context, *grad: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        if not torch.is_grad_enabled():
            return grad[0], None, None, None
        tensor, value, t, inverse = ctx.saved_tensors
        by_value = zero_without_derivative(value, 2, TWICE)
        if tensor.requires_grad:
            (by_t,) = torch.autograd.grad(tensor, t, grad[0], create_graph=True, allow_unused=True)
            by_value = by_value if by_t is None else by_value - by_t * inverse
        return grad[0], by_value.expand_as(value), None, None

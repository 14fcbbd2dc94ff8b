"""Implicit differentiation: the only place where a hit becomes differentiable."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from warpdvr.fields.gradient import value_and_gradient


def reattach(
    f: Callable[[Float[Tensor, "k 3"]], Float[Tensor, " k"]],
    origin: Float[Tensor, "k 3"],
    direction: Float[Tensor, "k 3"],
    t: Float[Tensor, " k"],
    *,
    grazing: float = 1e-3,
) -> Float[Tensor, " k"]:
    """Return the ray lengths `t` unchanged in value, with the gradient of the surface that they lie on.

    With x0 = o + t0 d on the surface {f = 0}, the implicit function theorem gives dt = -df / (grad f . d), so that

        t = t0 - (f(x0) - f(x0).detach()) / (grad f(x0) . d).detach()

    has the right value and the right derivative with respect to everything that f depends on (weights, radius, codes)
    and to o and d, hence to camera poses (Niemeyer et al. 2020, eq. 10 and supplement; Yariv et al. 2020, eq. 3). The
    field is evaluated once. Second derivatives of t are not provided.

    Args:
        f: the field's `value`.
        origin, direction: of the rays that hit; differentiable.
        t: ray lengths found by a solver [scene unit]; taken as constants.
        grazing: the slope along the ray is kept at least this fraction of |grad f| away from 0, with its sign, because
            the derivative for a ray that only grazes the surface is unbounded.
    """
    if not torch.is_grad_enabled():
        return t
    x = origin + t.detach().to(origin)[:, None] * direction
    value, gradient = value_and_gradient(f, x)
    slope = (gradient * direction.detach()).sum(-1)
    min_slope = grazing * gradient.norm(dim=-1) + torch.finfo(slope.dtype).tiny
    slope = torch.where(slope > 0, slope.clamp_min(min_slope), slope.clamp_max(-min_slope))
    return t.detach().to(origin) - (value - value.detach()) / slope

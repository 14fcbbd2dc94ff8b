"""The soft mask of a field: how near to its surface a ray comes, or how deep it goes inside."""

import math

import torch
from torch import Tensor

from warpdvr.cameras.rays import Rays
from warpdvr.fields.base import Field, select_shape
from warpdvr.intersection.hit import Hit

DEPTHS = 32
"""Points on a ray behind its hit at which the smallest value is looked for."""


def soft_mask(field: Field, rays: Rays, hit: Hit, sharpness: float) -> tuple[Tensor, int]:
    """Return sigmoid(-sharpness * value) at the smallest value on each ray, shape (n,), and the number of evaluations.

    It is 0 for rays that miss the bounds. Differentiable with respect to the field and the rays (Yariv et al. 2020,
    eq. 7).
    """
    deepest, evaluations = deepest_on(field, rays, hit)
    in_bounds = ~deepest.isnan()
    x = rays.at(deepest.nan_to_num())[in_bounds].to(field.bounds.dtype)
    field = select_shape(field, rays.shape_index, in_bounds)
    soft = torch.sigmoid(-sharpness * field.value(x))
    return soft.new_zeros(len(rays)).masked_scatter(in_bounds, soft), evaluations + len(x)


@torch.no_grad()
def deepest_on(
    field: Field, rays: Rays, hit: Hit, *, depths: int = DEPTHS, reach: float = math.inf
) -> tuple[Tensor, int]:
    """Return the ray length of the smallest value on each ray (n,), NaN off the bounds, and the number of evaluations.

    `hit.nearest` ends at the crossing; behind it the field is evaluated at a few points, closest together at the
    crossing, because chords are short near an outline.

    Args:
        depths: number of points on each ray that hits, in addition to its crossing.
        reach: how far behind the crossing they lie at most [scene unit].
    """
    _, far = rays[hit.ray].clip(field.bounds)
    steps = torch.linspace(0, 1, depths + 1, device=far.device).square()
    t = hit.t[:, None] + (far - hit.t).clamp_max(reach)[:, None] * steps
    x = rays.origin[hit.ray][:, None] + t[..., None] * rays.direction[hit.ray][:, None]
    shape = select_shape(field, rays.shape_index, hit.ray.repeat_interleave(t.shape[1]))
    value = shape.value(x.reshape(-1, 3).to(field.bounds.dtype)).view(t.shape)
    best = t.gather(1, value.argmin(1, keepdim=True))[:, 0]
    return hit.nearest.index_copy(0, hit.ray, best), t.numel()

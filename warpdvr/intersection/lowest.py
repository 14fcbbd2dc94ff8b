"""The lowest value of a field on each ray, for soft masks and outlines."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from warpdvr.cameras.rays import Rays
from warpdvr.fields.base import Field, select_shape
from warpdvr.fields.empty import answered
from warpdvr.intersection.hit import Hit

DEPTHS = 32
"""Points on a ray behind its hit among which the smallest value is searched."""


def values_along(field: Field, rays: Rays, t: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    """Return the field's values at k places on each of n rays, in the field's own precision.

    Args:
        field: any field.
        rays: the rays.
        t: ray lengths [scene unit].
    """
    x = rays.origin[:, None] + t[..., None] * rays.direction[:, None]
    if rays.shape_index is not None:
        field = select_shape(field, rays.shape_index.repeat_interleave(t.shape[1]))
    value: Tensor = answered(field.value, x.reshape(-1, 3).to(field.bounds.dtype)).view(t.shape)
    return value


def lengths_behind(t: Float[Tensor, " n"], length: Float[Tensor, " n"], depths: int) -> Float[Tensor, "n k"]:
    """Return k = `depths` + 1 ray lengths from each t to t + length.

    They lie closest together at t, where an outline has its short chords.
    """
    return t[:, None] + length[:, None] * torch.linspace(0, 1, depths + 1, device=t.device).square()


@torch.no_grad()
def lowest_on(
    field: Field, rays: Rays, hit: Hit, *, depths: int = DEPTHS, max_depth: float = math.inf
) -> tuple[Float[Tensor, " n"], int]:
    """Return the ray length of the smallest value on each ray, NaN if never evaluated, and the evaluations.

    `hit.nearest` ends at the crossing; some points behind it are evaluated here.

    Args:
        field: any field.
        rays: the rays that `hit` belongs to.
        hit: where they meet the surface.
        depths: points on each ray that hits, in addition to its crossing.
        max_depth: largest distance behind the crossing [scene unit].
    """
    crossing = rays[hit.ray]
    _, far = crossing.clip(field.bounds)
    t = hit.t.to(far)
    t = lengths_behind(t, (far - t).clamp_max(max_depth), depths)
    best = t.gather(1, values_along(field, crossing, t).argmin(1, keepdim=True))[:, 0]
    return hit.nearest.index_copy(0, hit.ray, best), t.numel()


def bracket_lowest(
    field: Field, rays: Rays, t: Float[Tensor, "n k"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Return which of k ascending ray lengths has the smallest value, and the distance to the next one."""
    best = values_along(field, rays, t).argmin(1, keepdim=True)
    width = t.diff(dim=1).gather(1, best.clamp_max(t.shape[1] - 2))
    return t.gather(1, best)[:, 0], width[:, 0]


@torch.no_grad()
def refine_lowest(
    field: Field, rays: Rays, t: Float[Tensor, " n"], width: Float[Tensor, " n"], steps: int = 3
) -> Float[Tensor, " n"]:
    """Return ray lengths of lower values near t: the lowest points of parabolas through three values.

    Args:
        field: any field.
        rays: n rays.
        t: where the values are low; NaN stays NaN.
        width: how far to either side the first parabolas look; each next one a quarter of that.
        steps: how many parabolas.
    """
    for _ in range(steps):
        at = t[:, None] + width[:, None] * torch.tensor([-1.0, 0.0, 1.0]).to(t)
        a, b, c = values_along(field, rays, at.nan_to_num()).unbind(1)
        bend = a - 2 * b + c
        step = torch.where(bend > 0, 0.5 * (a - c) / bend, torch.where(a < c, -1.0, 1.0) * (torch.minimum(a, c) < b))
        t, width = t + width * step.clamp(-1, 1), width / 4
    return t

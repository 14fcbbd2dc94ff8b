"""Aggregation: from the points along a ray to one colour, length and normal."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from warpdvr.cameras.rays import Rays
from warpdvr.fields.base import Field
from warpdvr.fields.gradient import unit
from warpdvr.intersection.base import Solver
from warpdvr.intersection.hit import Hit, Status
from warpdvr.rendering.compositing import Composited
from warpdvr.rendering.grazing import Spacing
from warpdvr.rendering.surface import shaded
from warpdvr.shading.shade import Shader, shade

SOLID = 0.5
"""Opacity from which on a ray counts as one that hits."""


@dataclass(frozen=True)
class RayValues:
    """Colour, length and normal of each of n rays."""

    hit: Hit
    """Which rays hit, and what became of the others; with an opacity, a ray hits from an opacity of 0.5 on."""
    t: Float[Tensor, " n"]
    """Ray length, NaN for a ray that does not hit [scene unit]; differentiable."""
    normal: Float[Tensor, "n 3"]
    """Outward unit normal, 0 for a ray that does not hit; differentiable."""
    color: Float[Tensor, "n 3"]
    """sRGB colour in [0, 1], 0 for a ray that does not hit; differentiable. An opacity is multiplied in."""
    flat: Bool[Tensor, " n"]
    """Whether the value has no slope where the ray hits: then t has no derivative and the normal is 0."""
    evaluations: int
    """Points at which the field was evaluated."""
    opacity: Float[Tensor, " n"] | None = None
    """How much of what is behind it a ray does not see, in [0, 1]; differentiable. None: 1 where it hits, else 0."""


class Aggregation(ABC):
    """Turns the points along a ray into one colour, one length and one normal."""

    def points_per_ray(self, intersect: Solver) -> int:
        """Return the number of points of one ray that are evaluated together; decides how many rays fit into memory.

        Args:
            intersect: the solver that `__call__` will be given.
        """
        return intersect.points_per_ray

    @abstractmethod
    def __call__(self, field: Field, rays: Rays, intersect: Solver, shader: Shader = shade) -> RayValues:
        """Return the values of rays; differentiable with respect to the field and the rays where autograd is recording.

        Args:
            field: one shape, or several with `Rays.shape_index`.
            rays: n rays.
            intersect: finds the surface.
            shader: colours surface points.
        """


@dataclass(frozen=True)
class HitPoint(Aggregation):
    """The values of a ray are those of the first point where it enters the surface (Niemeyer et al. 2020)."""

    spacing: Spacing | None = None
    """Takes the derivatives of colours and normals as means over pixels, see `surface`."""

    def __call__(self, field: Field, rays: Rays, intersect: Solver, shader: Shader = shade) -> RayValues:
        visible = shaded(field, rays, intersect, shader, spacing=self.spacing)
        n, ray = len(rays), visible.hit.ray
        return RayValues(
            hit=visible.hit,
            t=visible.t.new_full((n,), torch.nan).index_copy(0, ray, visible.t),
            normal=visible.normal.new_zeros(n, 3).index_copy(0, ray, visible.normal),
            color=visible.color.new_zeros(n, 3).index_copy(0, ray, visible.color),
            flat=torch.zeros_like(visible.hit.status, dtype=torch.bool).index_copy(0, ray, visible.flat),
            evaluations=visible.evaluations,
        )


def seen_through(seen: Composited, rays: Rays, length: Float[Tensor, " n"], evaluations: int) -> RayValues:
    """Return the values of rays from sums over their samples.

    The ray length is the mean over what is seen, and the normal the direction of the mean.

    Args:
        seen: sums of the weights times ray length, normal and colour.
        rays: n rays of unit directions.
        length: those that the directions had, NaN for what is no ray.
        evaluations: points at which the field was evaluated.
    """
    opacity = 1 - seen.left
    hits = opacity.detach() >= SOLID
    share = torch.where(hits, opacity, 1.0)
    t = seen.value[:, 0] / share / torch.where(hits, length, 1.0).to(share)
    status = torch.where(hits, int(Status.HIT), int(Status.MISS)).to(torch.int32)
    status = status.masked_fill(length.isnan() | opacity.detach().isnan(), int(Status.GAVE_UP))
    ray = torch.nonzero(hits)[:, 0]
    at = torch.where(hits, t, torch.nan)
    return RayValues(
        hit=Hit(at[ray].detach(), ray, status, at.detach().float(), evaluations),
        t=at,
        normal=torch.where(hits[:, None], unit(seen.value[:, 1:4]), 0),
        color=seen.value[:, 4:],
        flat=torch.zeros_like(hits),
        evaluations=evaluations,
        opacity=opacity,
    )

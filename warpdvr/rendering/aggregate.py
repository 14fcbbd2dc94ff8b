"""From what lies along a ray to what the ray shows."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from warpdvr.cameras.rays import Rays
from warpdvr.fields.base import Field
from warpdvr.intersection.base import Solver
from warpdvr.intersection.hit import Hit
from warpdvr.rendering.surface import surface
from warpdvr.shading.shade import Shader, shade


@dataclass(frozen=True)
class RayValues:
    """What each of n rays shows."""

    hit: Hit
    """Which rays hit, and what became of the others."""
    t: Float[Tensor, " n"]
    """Ray length, NaN for a ray that does not hit [scene unit]; differentiable."""
    normal: Float[Tensor, "n 3"]
    """Outward unit normal, 0 for a ray that does not hit; differentiable."""
    color: Float[Tensor, "n 3"]
    """sRGB colour in [0, 1], 0 for a ray that does not hit; differentiable."""
    evaluations: int
    """Points at which the field was evaluated."""


class Aggregation(ABC):
    """How the points along a ray become one colour, one length and one normal."""

    @abstractmethod
    def __call__(self, field: Field, rays: Rays, intersect: Solver, shader: Shader = shade) -> RayValues:
        """Return what the rays show; differentiable with respect to the field and the rays where autograd is recording.

        Args:
            field: one shape, or several with `Rays.shape_index`.
            rays: n rays.
            intersect: how the surface is found.
            shader: the colours of surface points.
        """


@dataclass(frozen=True)
class HitPoint(Aggregation):
    """A ray shows the first point at which it enters the surface, and nothing else (Niemeyer et al. 2020)."""

    def __call__(self, field: Field, rays: Rays, intersect: Solver, shader: Shader = shade) -> RayValues:
        seen = surface(field, rays, intersect, shader)
        n, ray = len(rays), seen.hit.ray
        return RayValues(
            hit=seen.hit,
            t=seen.t.new_full((n,), torch.nan).index_copy(0, ray, seen.t),
            normal=seen.normal.new_zeros(n, 3).index_copy(0, ray, seen.normal),
            color=seen.color.new_zeros(n, 3).index_copy(0, ray, seen.color),
            evaluations=seen.evaluations,
        )

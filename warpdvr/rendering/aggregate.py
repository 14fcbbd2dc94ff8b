"""Aggregation: from the points along a ray to one colour, length and normal."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from warpdvr.cameras.rays import Rays
from warpdvr.fields.base import Field
from warpdvr.intersection.base import Solver
from warpdvr.intersection.hit import Hit
from warpdvr.rendering.grazing import Spacing
from warpdvr.rendering.surface import shaded
from warpdvr.shading.shade import Shader, shade


@dataclass(frozen=True)
class RayValues:
    """Colour, length and normal of each of n rays."""

    hit: Hit
    """Which rays hit, and what became of the others."""
    t: Float[Tensor, " n"]
    """Ray length, NaN for a ray that does not hit [scene unit]; differentiable."""
    normal: Float[Tensor, "n 3"]
    """Outward unit normal, 0 for a ray that does not hit; differentiable."""
    color: Float[Tensor, "n 3"]
    """sRGB colour in [0, 1], 0 for a ray that does not hit; differentiable."""
    flat: Bool[Tensor, " n"]
    """Whether the value has no slope where the ray hits: then t has no derivative and the normal is 0."""
    evaluations: int
    """Points at which the field was evaluated."""


class Aggregation(ABC):
    """Turns the points along a ray into one colour, one length and one normal."""

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

"""The largest occupancy on a ray: a soft silhouette that every ray has a share in."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from warpdvr.cameras.rays import Rays
from warpdvr.fields.base import Field, select_shape
from warpdvr.fields.bounds import longest_side
from warpdvr.fields.gradient import evaluations_per_gradient, gradient, unit
from warpdvr.intersection.base import Solver
from warpdvr.intersection.lowest import bracket_lowest, refine_lowest
from warpdvr.rendering.aggregate import Aggregation, RayValues, seen_through
from warpdvr.rendering.compositing import Composited
from warpdvr.runtime.arguments import check_fields
from warpdvr.runtime.autograd import once_differentiable
from warpdvr.shading.shade import Shader, SurfacePoints, shade

SHARPNESS = 132.0
"""Of distances, by default: that with which a fit begins [1 / longest side of the bounds]."""

PARABOLAS = 3
"""Steps from the best sample towards the largest occupancy, three evaluations each."""

ONCE = "MaximumOccupancy: second derivatives are not provided; leave them out, or render with aggregate=HitPoint()"


@dataclass(frozen=True)
class MaximumOccupancy(Aggregation):
    """The values of a ray are those at the point of the largest occupancy on it (Liu et al. 2019).

    The opacity of the ray is that occupancy, sigmoid(-sharpness * value): in "Learning to Infer Implicit Surfaces
    without 3D Supervision" the silhouette. Every ray that passes the bounds has one, and draws the surface closer or
    pushes it away, wherever it is. Colour, normal and length are those at that point, deep in the object for a ray that
    goes through it: they show where a silhouette pulls, not what a camera sees.

    The largest one is looked for among samples, and from the best of these by parabolas through three values; what
    lies between two samples and shows in neither is missed. Differentiable once with respect to the field and the rays.
    That the point moves along the ray does not change the largest occupancy in first order, so its derivative is exact;
    those of colour and normal are for a point that stays at its ray length, whose own derivative is 0.
    """

    samples: int = 64
    """Evenly spaced samples on the part of a ray in the bounds, at least 2."""
    sharpness: float | None = None
    """Factor of the value [1 / field value]; None: 1 for an occupancy, 132 / longest side of the bounds for a
    distance."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.samples < 2 or self.sharpness == 0:
            raise ValueError(
                "MaximumOccupancy: needs samples >= 2 and a positive sharpness, got "
                f"{self.samples} and {self.sharpness}"
            )

    def points_per_ray(self, intersect: Solver) -> int:
        return self.samples

    def __call__(self, field: Field, rays: Rays, intersect: Solver, shader: Shader = shade) -> RayValues:
        rays, length = rays.normalised()
        by_default = 1.0 if field.kind == "occupancy" else SHARPNESS / longest_side(field.bounds)
        near, far = rays.clip(field.bounds)
        met = torch.nonzero((near <= far) & ~length.isnan())[:, 0]
        at = rays[met]
        t, evaluations = self._deepest(field, at, near[met].to(at.origin), far[met].to(at.origin))
        x, t = at.at(t).to(field.bounds.dtype), t.to(field.bounds.dtype)
        chosen = select_shape(field, at.shape_index)
        value, slope, feature = gradient(chosen, x)
        opacity = torch.sigmoid(-(self.sharpness or by_default) * once_differentiable(value, ONCE))
        normal = unit(slope)
        color = shader(SurfacePoints(chosen, x, normal, at.direction.to(t), feature))
        own = once_differentiable(torch.cat([t[:, None], normal, color], 1), ONCE)
        total = own.new_zeros(len(rays), 7).index_copy(0, met, opacity[:, None] * own)
        left = own.new_ones(len(rays)).index_copy(0, met, 1 - opacity)
        evaluations += evaluations_per_gradient(field) * len(x)
        return seen_through(Composited(total, left, opacity), rays, length, evaluations)

    @torch.no_grad()
    def _deepest(
        self, field: Field, rays: Rays, near: Float[Tensor, " n"], far: Float[Tensor, " n"]
    ) -> tuple[Float[Tensor, " n"], int]:
        """Return the ray length of the largest occupancy, and the evaluations."""
        t = near[:, None] + (far - near)[:, None] * torch.linspace(0, 1, self.samples).to(near)
        t, width = bracket_lowest(field, rays, t)
        t = refine_lowest(field, rays, t, width, PARABOLAS)
        t = torch.minimum(torch.maximum(t, near), far)
        return t, len(t) * (self.samples + 3 * PARABOLAS)

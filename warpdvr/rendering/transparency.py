"""Transparency: a ray sees everything along it, each part as far as light passes through what lies in front."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from warpdvr.cameras.rays import Rays
from warpdvr.fields.base import Field, select_shape
from warpdvr.fields.bounds import corner_numbers
from warpdvr.fields.empty import answered
from warpdvr.fields.gradient import evaluations_per_gradient, gradient, unit
from warpdvr.intersection.base import Solver
from warpdvr.intersection.occupied import cells_below
from warpdvr.rendering.aggregate import Aggregation, RayValues, seen_through
from warpdvr.rendering.compositing import composite
from warpdvr.rendering.ray_samples import Sections, cut
from warpdvr.runtime.arguments import check_fields
from warpdvr.shading.shade import Shader, SurfacePoints, shade

PER_STEP = {"occupancy": 1.0, "distance": 4.0}
"""Sharpness by default, for each kind of field [1 / step]."""

EMPTY = 16.0
"""Sharpness times distance, or logit, from which on cells are taken for empty: opacities there are below 2e-7."""


@dataclass(frozen=True)
class Transparency(Aggregation):
    """The values of a ray are the means over all of it, weighted by how much of each part is seen.

    The ray is cut into sections; of the light that comes to section i from behind, the share a_i, its opacity, is
    replaced by its own. It weighs w_i = a_i (1 - a_(i-1)) ... (1 - a_0). For each kind of field there is one opacity:

    - "distance" (NeuS, Wang et al. 2021, eq. 13): with Phi(f) = sigmoid(sharpness * f) at the two ends of a section,
      a = max(1 - Phi(f_(i+1)) / Phi(f_i), 0). Where f falls all the way, what passes does not depend on the cuts,
      and the weights are largest on the surface itself, to the first order. Colour and normal are those at the mean
      place of what the section replaces, exact where f is linear: with growing sharpness that is the hit.
    - "occupancy" (UNISURF, Oechsle et al. 2021, eq. 4 and 5): at the middle of a section the opacity of a sample is
      the occupancy, sigmoid(-f). As that of a length 1 / sharpness it holds for a section of any other length l:
      a = 1 - (1 - sigmoid(-f))^(l * sharpness).

    Given an `intersect` that remembers, a `CachedMarch` or one with a `BoundGrid`, sections in cells that it knows to
    be empty are left out.

    Differentiable once with respect to the field and the rays, whose points move with them; the sides of the bounds
    have no gradient. Sections whose weight is lost in rounding are not recorded and have no gradient, so that memory
    for derivatives is that of the parts that are seen.
    """

    samples: int = 128
    """Largest number of sections on a ray."""
    sharpness: float | None = None
    """Of a surface [1 / scene unit]; None: `PER_STEP` of the step. Larger is closer to `HitPoint`."""
    step: float | None = None
    """Length of a section, longer on a ray that needs more than `samples` [scene unit]; None: the diagonal of the
    bounds over `samples`."""
    jitter: torch.Generator | None = None
    """Moves the sections of each ray by a random part of the step; None: they start at the bounds."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.samples < 1 or self.sharpness == 0 or self.step == 0:
            raise ValueError(
                "Transparency: needs samples >= 1 and a positive sharpness and step, got "
                f"{self.samples}, {self.sharpness} and {self.step}"
            )

    def points_per_ray(self, intersect: Solver) -> int:
        return self.samples + 1

    def __call__(self, field: Field, rays: Rays, intersect: Solver, shader: Shader = shade) -> RayValues:
        rays, length = rays.normalised()
        low, high = corner_numbers(field.bounds)
        diagonal = sum((b - a) ** 2 for a, b in zip(low, high, strict=True)) ** 0.5
        step = self.step or diagonal / self.samples
        sharpness = self.sharpness or PER_STEP[field.kind] / step
        level = EMPTY if field.kind == "occupancy" else EMPTY / sharpness
        cells, evaluations = cells_below(intersect if rays.shape_index is None else None, field, level)
        sections = cut(rays, field.bounds, step=step, most=self.samples, cells=cells, jitter=self.jitter)
        with torch.no_grad():
            opacity, _, for_opacity = _OPACITY[field.kind](field, rays, sections, sharpness)
            weight = composite(sections.first, opacity, opacity[:, None]).weight
            sections = sections[weight > torch.finfo(weight.dtype).eps]
        evaluations += for_opacity
        opacity, t, for_opacity = _OPACITY[field.kind](field, rays, sections, sharpness)
        value, for_value = _values(field, rays, sections, t, shader)
        seen = composite(sections.first, opacity, torch.cat([t[:, None], *value], 1))
        return seen_through(seen, rays, length, evaluations + for_opacity + for_value)


def _distance_opacity(
    field: Field, rays: Rays, sections: Sections, sharpness: float
) -> tuple[Float[Tensor, " m"], Float[Tensor, " m"], int]:
    """Return the opacity of each section, the ray length that stands for it, and the evaluations."""
    value = sharpness * _value(field, rays, sections.point_ray, sections.t).double()
    a, b = value[sections.start], value[sections.start + 1]
    start, end = (t.double() for t in sections.ends)
    opacity = -torch.expm1((logsigmoid(b) - logsigmoid(a)).clamp_max(0))
    t = start + (end - start) * mean_place(a, b)
    return opacity.to(field.bounds.dtype), t.to(field.bounds.dtype), len(value)


def mean_place(a: Float[Tensor, " m"], b: Float[Tensor, " m"]) -> Float[Tensor, " m"]:
    """Return the mean place in (0, 1) of what a section replaces, if sharpness * f falls evenly from a to b.

    What passes up to a place x is T(x) = Phi(x) / Phi(a), so that the mean is the integral of T over the section,
    less what passes at its end, over the opacity. In the middle where nothing falls.

    Args:
        a, b: sharpness * f at the ends, float64; differentiable.
    """
    x, y = a.clamp(-30, 30), b.clamp(-30, 30)  # above T is 1, and below it is an exponential
    falls = x - y > 1e-4
    x, y = torch.where(falls, x, 1.0), torch.where(falls, y, 0.0)
    passes = torch.exp(logsigmoid(y) - logsigmoid(x))
    integral = (softplus(x) - softplus(y)) / (x - y) / torch.sigmoid(x)
    part = (integral - passes) / (1 - passes)
    place = ((a - x) + part * (x - y)) / torch.where(falls, a - b, 1.0)
    return torch.where(falls, place, 0.5)


def _occupancy_opacity(
    field: Field, rays: Rays, sections: Sections, sharpness: float
) -> tuple[Float[Tensor, " m"], Float[Tensor, " m"], int]:
    """Return the opacity of each section, the ray length that stands for it, and the evaluations."""
    start, end = sections.ends
    middle = 0.5 * (start + end)
    value = _value(field, rays, sections.ray, middle)
    length = (end - start).to(value)
    return -torch.expm1(-sharpness * length * softplus(-value)), middle.to(value), len(value)


_OPACITY = {"distance": _distance_opacity, "occupancy": _occupancy_opacity}


def _value(field: Field, rays: Rays, ray: Tensor, t: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
    """Return the field's values at places of rays; differentiable with respect to the field and the rays."""
    x = rays[ray].at(t.to(rays.origin)).to(field.bounds.dtype)
    value: Tensor = answered(select_shape(field, rays.shape_index, ray).value, x)
    return value


def _values(
    field: Field, rays: Rays, sections: Sections, t: Float[Tensor, " m"], shader: Shader
) -> tuple[list[Tensor], int]:
    """Return the normals and colours at ray lengths, and the evaluations."""
    at = rays[sections.ray]
    x = at.origin.to(t) + t[:, None] * at.direction.to(t)
    field = select_shape(field, rays.shape_index, sections.ray)
    _, slope, feature = gradient(field, x)
    normal = unit(slope)
    color = shader(SurfacePoints(field, x, normal, at.direction.to(t), feature))
    return [normal, color], evaluations_per_gradient(field) * len(x)

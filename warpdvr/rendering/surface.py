"""The visible surface: points, normals and colours where rays hit."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from warpdvr.cameras.rays import Rays
from warpdvr.fields.adapter import as_field
from warpdvr.fields.base import Field, FieldLike, select_shape
from warpdvr.fields.gradient import evaluations_per_gradient, gradient, unit
from warpdvr.intersection.base import Solver, SolverLike, as_solver
from warpdvr.intersection.default import default_intersect
from warpdvr.intersection.diagnosis import warn_of_rays
from warpdvr.intersection.hit import Hit, outcomes
from warpdvr.rendering.grazing import Spacing, mean_over_pixel
from warpdvr.rendering.implicit import attach, correct, is_flat
from warpdvr.runtime.arguments import check_device
from warpdvr.runtime.autograd import once_differentiable
from warpdvr.runtime.inference_mode import ordinary, outside_inference
from warpdvr.shading.shade import Shader, SurfacePoints, shade

ONCE = (
    "surface: second derivatives of what is a mean over a pixel are not provided; leave out spacing or, in render, "
    "outline"
)


@dataclass(frozen=True)
class TracedPoints:
    """Where k of n rays meet a surface."""

    hit: Hit
    """Which rays hit, and what became of the others."""
    t: Float[Tensor, " k"]
    """Ray length [scene unit, or lengths of `Rays.direction`]; differentiable by the field and the rays."""
    points: SurfacePoints
    """The points, differentiable, ready to be shaded."""
    slope: Float[Tensor, " k"]
    """Length of the field's gradient there; differentiable."""
    flat: Bool[Tensor, " k"]
    """Whether the value has no slope there: then t has no derivative and the normal is 0."""
    evaluations: int
    """Points at which the field was evaluated: for the hits, their gradients and what makes them move."""


@dataclass(frozen=True)
class Surface:
    """The surface points, normals and colours that k of n rays hit."""

    hit: Hit
    """Which rays hit, and what became of the others."""
    t: Float[Tensor, " k"]
    """Ray length [scene unit, or lengths of `Rays.direction`]; differentiable by the field and the rays."""
    x: Float[Tensor, "k 3"]
    """Point on the surface [scene unit]; differentiable."""
    normal: Float[Tensor, "k 3"]
    """Outward unit normal; differentiable."""
    color: Float[Tensor, "k 3"]
    """sRGB colour in [0, 1]; differentiable."""
    slope: Float[Tensor, " k"]
    """Length of the field's gradient at x; differentiable."""
    flat: Bool[Tensor, " k"]
    """Whether the value has no slope there: then t has no derivative and the normal is 0."""
    evaluations: int
    """Points at which the field was evaluated: for the hits, their gradients and what makes them move."""

    def __repr__(self) -> str:
        return f"Surface({len(self.hit.status)} rays: {outcomes(self.hit.status, self.evaluations)})"


@outside_inference
def surface(
    field: FieldLike | object, rays: Rays | object, intersect: SolverLike | object | None = None, shader: Shader = shade
) -> Surface:
    """Return the surface where rays hit it, packed: only rays that hit. Differentiable where autograd is recording.

    Derivatives are those of single rays, exact to the second order (see `warpdvr.rendering.implicit.correct`). Like
    `render`, it warns of rays that see nothing because of the field.

    Args:
        field: a `Field`, or what `as_field` makes one of.
        rays: n rays, from anywhere in any direction, on the device of the field.
        intersect: finds the surface; by default `SphereTrace()` for fields with a Lipschitz bound, else `DenseMarch()`.
        shader: colours surface points; by default the field's own colours.

    Example:
        >>> import torch, warpdvr
        >>> rays = warpdvr.Rays(torch.tensor([[0.0, -2.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0]]))
        >>> seen = warpdvr.surface(warpdvr.make("sphere", radius=0.5), rays)
        >>> round(float(seen.t), 4), seen.hit.ray.tolist()
        (1.5, [0])

    Raises:
        ValueError: if an argument makes no sense.
    """
    field = as_field(field)
    if not isinstance(rays, Rays):
        raise ValueError(f"surface: rays must be Rays(origin, direction), got {type(rays).__name__}")
    check_device("surface", field.bounds.device, rays=rays.origin)
    rays = replace(rays, origin=ordinary(rays.origin), direction=ordinary(rays.direction))
    seen = shaded(field, rays, as_solver(default_intersect(field) if intersect is None else intersect), shader)
    looked_at = warn_of_rays("surface", field, lambda: rays, seen.hit.status, stacklevel=3)
    return replace(seen, evaluations=seen.evaluations + looked_at)


def shaded(
    field: Field, rays: Rays, intersect: Solver, shader: Shader = shade, *, spacing: Spacing | None = None
) -> Surface:
    """Return what `surface` returns, for callers who have checked their arguments once for many batches of rays.

    Args:
        field: of one shape or, with `Rays.shape_index`, of several.
        rays: n rays.
        intersect: finds the surface.
        shader: colours surface points.
        spacing: that of pixels, for first derivatives of colours and normals as means over pixels instead: they are
            bounded at outlines, see `warpdvr.rendering.grazing`.
    """
    traced = trace(field, rays, intersect, spacing)
    at = traced.points
    return Surface(traced.hit, traced.t, at.x, at.normal, shader(at), traced.slope, traced.flat, traced.evaluations)


def trace(field: Field, rays: Rays, intersect: Solver, spacing: Spacing | None = None) -> TracedPoints:
    """Return where the rays meet the surface, packed: only those that hit. Differentiable where autograd records."""
    hit = intersect(field, rays)
    dtype = field.bounds.dtype
    all_shapes, field = field, select_shape(field, rays.shape_index, hit.ray)
    seen_by, length = Rays(rays.origin[hit.ray].to(dtype), rays.direction[hit.ray].to(dtype)).normalised()
    o, d = seen_by.origin, seen_by.direction
    t_hit = hit.t * length.detach().to(hit.t)
    evaluations = hit.evaluations + evaluations_per_gradient(field) * len(hit.ray)
    if not torch.is_grad_enabled():
        x = o + t_hit[:, None].to(dtype) * d
        _, slope, feature = gradient(field, x)
        flat = is_flat(slope)
        slope = torch.where(flat[:, None], 0, slope)
        return TracedPoints(hit, hit.t, _points(field, x, slope, d, feature), slope.norm(dim=-1), flat, evaluations)
    attached = attach(field.value, o, d, t_hit)
    evaluations, t = evaluations + len(hit.ray), attached.t
    if spacing is not None:
        share, for_means = mean_over_pixel(
            all_shapes, replace(seen_by, shape_index=rays[hit.ray].shape_index), attached, spacing
        )
        evaluations, t = evaluations + for_means, t.detach() + share * (t - t.detach())
    x = o + t[:, None] * d
    value, slope, feature = gradient(field, x)
    flat = is_flat(slope.detach())
    seen = [attached.t, x, torch.where(flat[:, None], 0, slope), *([] if feature is None else [feature])]
    if spacing is None:
        seen = correct(attached, value, seen)
    else:
        seen = [once_differentiable(tensor, ONCE) for tensor in seen]
    t, x, slope, *features = seen
    points = _points(field, x, slope, d, features[0] if features else None)
    return TracedPoints(hit, t / length.to(t), points, slope.norm(dim=-1), flat | attached.flat, evaluations)


def _points(
    field: Field,
    x: Float[Tensor, "k 3"],
    slope: Float[Tensor, "k 3"],
    d: Float[Tensor, "k 3"],
    feature: Float[Tensor, "k c"] | None,
) -> SurfacePoints:
    return SurfacePoints(field, x, unit(slope), d, feature)

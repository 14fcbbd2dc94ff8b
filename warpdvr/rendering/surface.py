"""The visible surface: points, normals and colours where rays hit."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from warpdvr.cameras.rays import Rays
from warpdvr.fields.adapter import as_field
from warpdvr.fields.base import Field, FieldLike, select_shape
from warpdvr.fields.gradient import evaluations_per_gradient, gradient, unit
from warpdvr.intersection.base import Solver, SolverLike, as_solver
from warpdvr.intersection.default import default_intersect
from warpdvr.intersection.diagnosis import warn_of_rays
from warpdvr.intersection.hit import Hit, outcomes
from warpdvr.rendering.implicit import reattach
from warpdvr.runtime.calls import ordinary, outside_inference
from warpdvr.shading.shade import Shader, SurfacePoints, shade


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
    evaluations: int
    """Points at which the field was evaluated: for the hits, their gradients and what makes them move."""

    def __repr__(self) -> str:
        return f"Surface({len(self.hit.status)} rays: {outcomes(self.hit.status, self.evaluations)})"


@outside_inference
def surface(
    field: FieldLike | object, rays: Rays | object, intersect: SolverLike | object | None = None, shader: Shader = shade
) -> Surface:
    """Return the surface where rays hit it, packed: only rays that hit. Differentiable where autograd is recording.

    Like `render`, it warns of rays that see nothing because of the field.

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
    rays = replace(rays, origin=ordinary(rays.origin), direction=ordinary(rays.direction))
    seen = shaded(field, rays, as_solver(default_intersect(field) if intersect is None else intersect), shader)
    looked_at = warn_of_rays("surface", field, lambda: rays, seen.hit.status, stacklevel=3)
    return replace(seen, evaluations=seen.evaluations + looked_at)


def shaded(field: Field, rays: Rays, intersect: Solver, shader: Shader = shade) -> Surface:
    """Return what `surface` returns, for callers who have checked their arguments once for many batches of rays."""
    traced = trace(field, rays, intersect)
    at = traced.points
    return Surface(traced.hit, traced.t, at.x, at.normal, shader(at), traced.slope, traced.evaluations)


def trace(field: Field, rays: Rays, intersect: Solver) -> TracedPoints:
    """Return where the rays meet the surface, packed: only those that hit. Differentiable where autograd records."""
    hit = intersect(field, rays)
    dtype = field.bounds.dtype
    field = select_shape(field, rays.shape_index, hit.ray)
    seen, length = Rays(rays.origin[hit.ray].to(dtype), rays.direction[hit.ray].to(dtype)).normalised()
    o, d = seen.origin, seen.direction
    t = reattach(field.value, o, d, hit.t * length.detach().to(hit.t))
    x = o + t[:, None].to(dtype) * d
    _, slope, feature = gradient(field, x)
    points = SurfacePoints(field, x, unit(slope), d, feature)
    evaluations = hit.evaluations + (int(torch.is_grad_enabled()) + evaluations_per_gradient(field)) * len(x)
    return TracedPoints(hit, t / length.to(t), points, slope.norm(dim=-1), evaluations)

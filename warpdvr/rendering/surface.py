"""The visible surface: points, normals and colours where rays hit."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from warpdvr.cameras.rays import Rays
from warpdvr.fields.base import Field, select_shape
from warpdvr.fields.gradient import evaluations_per_gradient, gradient, unit
from warpdvr.intersection.base import Solver
from warpdvr.intersection.hit import Hit
from warpdvr.rendering.implicit import attach, correct, is_flat
from warpdvr.shading.shade import Shader, SurfacePoints, shade


@dataclass(frozen=True)
class TracedPoints:
    """Where k of n rays meet a surface."""

    hit: Hit
    """Which rays hit, and what became of the others."""
    t: Float[Tensor, " k"]
    """Ray length [scene unit]; differentiable with respect to the field and the rays."""
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
    """Ray length [scene unit]; differentiable with respect to the field and the rays."""
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


def surface(field: Field, rays: Rays, intersect: Solver, shader: Shader = shade) -> Surface:
    """Return the surface where rays hit it, packed: only rays that hit. Differentiable where autograd is recording."""
    traced = trace(field, rays, intersect)
    at = traced.points
    return Surface(traced.hit, traced.t, at.x, at.normal, shader(at), traced.slope, traced.flat, traced.evaluations)


def trace(field: Field, rays: Rays, intersect: Solver) -> TracedPoints:
    """Return where the rays meet the surface, packed: only those that hit. Differentiable where autograd records."""
    hit = intersect(field, rays)
    dtype = field.bounds.dtype
    field = select_shape(field, rays.shape_index, hit.ray)
    o, d = rays.origin[hit.ray].to(dtype), rays.direction[hit.ray].to(dtype)
    evaluations = hit.evaluations + (int(torch.is_grad_enabled()) + evaluations_per_gradient(field)) * len(hit.ray)
    if not torch.is_grad_enabled():
        x = o + hit.t[:, None].to(dtype) * d
        _, slope, feature = gradient(field, x)
        flat = is_flat(slope)
        t, slope = hit.t, torch.where(flat[:, None], 0, slope)
    else:
        attached = attach(field.value, o, d, hit.t)
        x = o + attached.t[:, None] * d
        value, slope, feature = gradient(field, x)
        flat = is_flat(slope.detach())
        seen = attached.t, x, torch.where(flat[:, None], 0, slope), *(() if feature is None else (feature,))
        t, x, slope, *features = correct(attached, value, seen)
        flat, feature = flat | attached.flat, features[0] if features else None
    points = SurfacePoints(field, x, unit(slope), d, feature)
    return TracedPoints(hit, t, points, slope.norm(dim=-1), flat, evaluations)

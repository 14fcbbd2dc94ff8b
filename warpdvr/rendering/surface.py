"""What rays see of a surface: points, normals, colours."""

from dataclasses import dataclass

from torch import Tensor

from warpdvr.cameras.rays import Rays
from warpdvr.fields.base import Field, select_shape
from warpdvr.intersection.base import Solver
from warpdvr.intersection.hit import Hit
from warpdvr.rendering.gradient import gradient, unit
from warpdvr.rendering.implicit import reattach


@dataclass(frozen=True)
class Surface:
    """What k of n rays see."""

    hit: Hit
    """Which rays hit, and what became of the others."""
    t: Tensor
    """Ray length, shape (k,) [scene unit]; differentiable with respect to the field and the rays."""
    x: Tensor
    """Point on the surface, shape (k, 3); differentiable."""
    normal: Tensor
    """Outward unit normal, shape (k, 3); differentiable."""
    color: Tensor
    """sRGB colour in [0, 1], shape (k, 3); differentiable."""
    slope: Tensor
    """Length of the field's gradient at x, shape (k,); differentiable."""


def surface(field: Field, rays: Rays, intersect: Solver) -> Surface:
    """Return what the rays see, packed: only rays that hit. Differentiable where autograd is recording."""
    hit = intersect(field, rays)
    dtype = field.bounds.dtype
    field = select_shape(field, rays.shape_index, hit.ray)
    o, d = rays.origin[hit.ray].to(dtype), rays.direction[hit.ray].to(dtype)
    t = reattach(field.value, o, d, hit.t)
    x = o + t[:, None].to(dtype) * d
    _, slope, feature = gradient(field, x)
    normal = unit(slope)
    return Surface(hit, t, x, normal, field.color(x, normal, d, feature), slope.norm(dim=-1))

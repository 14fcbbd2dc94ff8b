"""Grazing pixels: how far their hits move, as the mean over a pixel instead of at its centre."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.rays import Rays
from warpdvr.fields.base import Field, select_shape
from warpdvr.fields.empty import answered
from warpdvr.fields.gradient import unit
from warpdvr.rendering.implicit import Attached

Spacing = Callable[[Float[Tensor, " n"], Float[Tensor, "n 3"]], Float[Tensor, " n"]]
"""From ray lengths and normals to the distance, along the normal, between neighbouring pixels [scene unit]."""

GRAZING = 0.5
"""Largest cosine between ray and normal at which a hit may lie at an outline."""

NEAR = 4.0
"""Largest distance from the outline at which the mean is not the value at the centre [spacing of pixels]."""

AHEAD = 4.0
"""How far behind the hit a value is taken, by which the lowest one is looked for [spacing of pixels]."""

FARTHEST = 256.0
"""How far behind the hit the lowest value is looked for [spacing of pixels]."""

SMOOTH = 0.35
"""How far off the parabola's lowest value may be, as a fraction of it, for an outline that is not an edge."""


def pixel_spacing(camera: Camera) -> Spacing:
    """Return the spacing of a camera's pixels across outlines, along rows or columns, whichever crosses them faster."""

    def spacing(t: Float[Tensor, " n"], normal: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        across = (normal @ camera.pose.detach()[:3, :2].to(normal)).abs()
        share = across / across.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        width: Tensor = (camera.pixel_size(t).to(normal) * share).amax(-1)
        return width

    return spacing


@torch.no_grad()
def mean_over_pixel(field: Field, rays: Rays, attached: Attached, spacing: Spacing) -> tuple[Float[Tensor, " k"], int]:
    """Return the factor from the derivative of each ray length to its mean over a pixel, and the evaluations.

    At a distance of r pixels inside the outline of a smooth surface, the cosine between ray and normal is proportional
    to sqrt(r), and the derivative of the ray length to 1 / sqrt(r). Its integral is finite, but its sum over the
    pixels' centres depends on how close the closest ones happen to come. The mean from r - 1/2 to r + 1/2 is

        2 (sqrt(r + 1/2) - sqrt(r - 1/2)),

    and in the first pixel inside the outline, r < 1, the second root is left out: it then stands for all that is
    between the outline and the second pixel. The sum along a row or a column of pixels is that of the integral. Pixels
    with several rays (`antialias`) keep the derivatives of these.

    On the ray the value falls to its lowest, and across the rays it rises by |grad f| for each unit of length: this
    gives r. The lowest is the one where a parabola through a value behind the hit has its lowest. If the parabola has
    another value there, the outline is an edge: the cosine does not vanish there, and the factor is 1.

    Args:
        field: of one shape or, with `Rays.shape_index`, of several.
        rays: the k rays that hit.
        attached: where they hit.
        spacing: of the pixels.
    """
    factor = torch.ones_like(attached.slope)
    steep = attached.gradient.norm(dim=-1)
    grazing = torch.nonzero((attached.slope.abs() < GRAZING * steep) & ~attached.flat)[:, 0]
    t, slope, steep = (a[grazing] for a in (attached.t, attached.slope, steep))
    width = spacing(t, unit(attached.gradient[grazing])).to(t)
    ahead = AHEAD * width
    rays, field = rays[grazing], select_shape(field, rays.shape_index, grazing)
    fall = answered(field.value, rays.at(t + ahead).to(t)) - attached.value[grazing]
    bend = 2 * (fall - slope * ahead) / ahead.square()
    lowest = torch.where(bend > 0, -slope / bend, 0).clamp_max(FARTHEST * width)
    depth = -answered(field.value, rays.at(t + lowest).to(t))
    smooth = (bend > 0) & ((depth / (0.5 * slope.abs() * lowest) - 1).abs() < SMOOTH)
    r = torch.where(smooth, depth / (steep * width), torch.inf).clamp_max(2 * NEAR)
    mean = 2 * (torch.sqrt(r + 0.5) - torch.where(r < 1, 0, (r - 0.5).clamp_min(0).sqrt()))
    return factor.index_copy(0, grazing, torch.where(r < NEAR, mean * r.sqrt(), 1)), 2 * len(grazing)

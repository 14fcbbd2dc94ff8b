"""The visual hull of all masks: which balls lie inside of it, without a grid."""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.datasets.views import Views
from warpdvr.datasets.visual_hull import summed_area

RINGS = ((0.0, 1), (0.5, 8), (1.0, 24))
"""Points at which a disc in a picture is looked up: shares of its radius, and how many on each circle."""


def inside_hull(x: Float[Tensor, "n 3"], views: Views, *, radius: float = 0.0) -> Bool[Tensor, " n"]:
    """Return which balls lie entirely inside the visual hull of all masks (Laurentini 1994); not differentiable.

    A ball lies inside if its image lies inside of the mask in every view. What lies outside of an image, or behind a
    camera, is unknown and not carved, as in views without a mask.

    Args:
        x: their centres [scene unit].
        views: masks and cameras.
        radius: of the balls [scene unit]; 0 for points.
    """
    x, left = x.detach().float().cpu(), torch.arange(len(x))
    for camera, mask in zip(views.cameras, views.masks, strict=True):
        if mask is not None:
            left = left[~_shows_background(x[left], radius, camera, mask)]
    inside = torch.zeros(len(x), dtype=torch.bool)
    inside[left] = True
    return inside


def _shows_background(
    x: Float[Tensor, "n 3"], radius: float, camera: Camera, mask: Bool[Tensor, "h w"]
) -> Bool[Tensor, " n"]:
    """Return which balls have a part before the background that one view sees."""
    pose, K = camera.pose.detach().to(x), camera.K.detach().to(x)
    local = (x - pose[:3, 3]) @ pose[:3, :3]
    front = local[:, 2] > radius
    safe = torch.where(front[:, None], local, torch.tensor([0.0, 0.0, 1.0 + radius]))
    centre = camera.projection.local_project(K, safe)
    reach = camera.projection.image_radius(K, safe, radius)
    size = torch.tensor([camera.width, camera.height])
    first = (centre - reach[:, None]).floor().clamp_min(0).minimum(size).long()
    last = ((centre + reach[:, None]).floor() + 1).clamp_min(0).minimum(size).long()
    table, ((u0, v0), (u1, v1)) = summed_area(~mask), (first.T, last.T)
    near = (table[v1, u1] - table[v0, u1] - table[v1, u0] + table[v0, u0] > 0) & front
    centre, reach = centre[near], reach[near, None]
    shows = torch.zeros(len(centre), dtype=torch.bool)
    for offset in _disc():
        pixel = (centre + reach * offset).floor()
        seen = ((pixel >= 0) & (pixel < size)).all(1)
        u, v = torch.where(seen[:, None], pixel, 0.0).long().unbind(1)
        shows |= seen & ~mask[v, u]
    near[near.clone()] = shows
    return near


def _disc() -> Iterator[Float[Tensor, "2"]]:
    """Yield points of the unit disc."""
    for share, n in RINGS:
        for i in range(n):
            angle = 2 * math.pi * i / n
            yield share * torch.tensor([math.cos(angle), math.sin(angle)])

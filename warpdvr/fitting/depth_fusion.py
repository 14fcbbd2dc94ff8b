"""One surface from the depths that many views see in voxels of density: truncated distances, averaged on a lattice."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.rays import Rays
from warpdvr.datasets.views import Views
from warpdvr.rendering.density_voxels import Composited, DensityVoxels

TRUNCATION = 3.0
"""Distances beyond this many cells count as this many."""

LARGEST = 400
"""Views are rendered with at most this many pixels along their longer side."""

CHUNK = 1 << 17
"""Rays that are rendered at once."""


@torch.no_grad()
def fuse_depths(voxels: DensityVoxels, views: Views) -> Float[Tensor, "s s s"]:
    """Return how far each corner of the voxels lies in front of what the training views see [scene unit].

    Each view measures it along its axis; beyond the truncation in front of the surface it counts as that, farther
    behind the surface it says nothing. Their mean is positive in front and negative behind, and 0 on a surface to a
    part of a cell, though densities are rough (Curless and Levoy, "A volumetric method for building complex models
    from range images", 1996). A corner that no view sees lies inside; one without voxels lies outside.
    """
    limit = TRUNCATION * float(voxels.side.max())
    x = voxels.bounds[0] + voxels.corner * voxels.side
    total, count = torch.zeros(2, len(x), device=x.device)
    for i in views.train:
        camera = reduced(views.cameras[i]).to(x.device)
        depth = _depth(voxels, camera, views.masks[i])
        local = (x - camera.pose[:3, 3].to(x)) @ camera.pose[:3, :3].to(x)
        z = local[:, 2]
        column, row = camera.projection.local_project(camera.K.to(x), local).floor().long().unbind(1)
        seen = (z > 0) & (column >= 0) & (row >= 0) & (column < camera.width) & (row < camera.height)
        offset = depth[torch.where(seen, row, 0), torch.where(seen, column, 0)] - z
        seen &= offset > -limit
        total += torch.where(seen, offset.clamp_max(limit), 0)
        count += seen
    lattice = torch.full(voxels.row.shape, limit, device=x.device)
    lattice[tuple(voxels.corner.unbind(1))] = torch.where(count > 0, total / count.clamp_min(1), -limit)
    return lattice


def render_view(voxels: DensityVoxels, camera: Camera) -> Composited:
    """Return what each pixel of a view sees of the voxels, row by row."""
    rays = camera.rays(dtype=torch.float32)
    parts = zip(rays.origin.split(CHUNK), rays.direction.split(CHUNK), strict=True)
    return Composited(*map(torch.cat, zip(*(voxels.render(Rays(o, d)) for o, d in parts), strict=True)))


def reduced(camera: Camera) -> Camera:
    """Return a camera with at most `LARGEST` pixels along its longer side."""
    factor = max(1.0, max(camera.width, camera.height) / LARGEST)
    return camera.resized(round(camera.width / factor), round(camera.height / factor))


def _depth(voxels: DensityVoxels, camera: Camera, mask: Bool[Tensor, "_ _"] | None) -> Float[Tensor, "h w"]:
    """Return the depth at which half of the light is left, infinity where more passes or the mask has background."""
    forward = camera.rays(dtype=torch.float32).direction @ camera.pose[:3, 2].float()
    depth = (render_view(voxels, camera).t * forward).view(camera.height, camera.width)
    if mask is None:
        return depth
    size = camera.height, camera.width
    share = torch.nn.functional.interpolate(mask[None, None].float(), size=size, mode="area")[0, 0]
    return torch.where(share.to(depth.device) < 0.5, torch.inf, depth)

"""One surface from the depths that many views see in voxels of density: truncated distances, averaged on a lattice."""

from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import interpolate

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.rays import Rays
from warpdvr.datasets.views import Views
from warpdvr.fitting.mask_trust import OUTVOTED, contradicted
from warpdvr.rendering.density_voxels import Composited, DensityVoxels
from warpdvr.runtime.threads import in_order

TRUNCATION = 3.0
"""Distances beyond this many cells count as this many."""

PER_CELL = 2.0
"""Views are rendered with at most this many pixels along their longer side for each cell along a side of the voxels."""

CHUNK = 1 << 17
"""Rays that are rendered at once."""


@dataclass(frozen=True)
class Fusion:
    """What the training views see of voxels, put together."""

    lattice: Float[Tensor, "s s s"]
    """How far each corner of the voxels lies in front of the surface [scene unit]."""
    distrusted: Bool[Tensor, " n"]
    """Which pixels of the training views have a mask that the voxels contradict, view after view, row by row."""


@torch.no_grad()
def fuse_depths(voxels: DensityVoxels, views: Views) -> Fusion:
    """Return how far each corner of the voxels lies in front of what the training views see, and which masks are wrong.

    Each view measures it along its axis; beyond the truncation in front of the surface it counts as that, farther
    behind the surface it says nothing. Their mean is positive in front and negative behind, and 0 on a surface to a
    part of a cell, though densities are rough (Curless and Levoy, "A volumetric method for building complex models
    from range images", 1996). A corner that no view sees lies inside; one without voxels lies outside.

    Pixels in whose mask is background see through everything, unless the voxels contradict it (`mask_trust`). That
    counts at corners that more than `OUTVOTED` of the views see there: otherwise a hole in one mask would be one
    through the object, inside of which nobody contradicts it.
    """
    limit = TRUNCATION * float(voxels.side.max())
    x = voxels.bounds[0] + voxels.corner * voxels.side
    total, count = torch.zeros(2, 2, len(x), device=x.device)  # of the voxels' depths, and with masks
    background, visible = torch.zeros(2, len(x), device=x.device)
    distrusted = []
    largest = round(PER_CELL * voxels.resolution)
    cameras = [reduced(views.cameras[i], largest).to(x.device) for i in views.train]
    in_turn = map if x.device.type == "cuda" else in_order  # whose threads do not share its stream
    for i, camera, seen in zip(views.train, cameras, in_turn(partial(render_view, voxels), cameras), strict=True):
        mask, size = views.masks[i], (camera.height, camera.width)
        forward = camera.rays(dtype=torch.float32).direction @ camera.pose[:3, 2].float()
        depth, (wrong, empty) = seen.t * forward, torch.zeros(2, *size, dtype=torch.bool)
        if mask is not None:
            share = interpolate(mask[None, None].float(), size=size, mode="area")[0, 0]
            wrong = contradicted(share, seen.left.view(size).cpu())
            empty = (share < 0.5) & ~wrong
        full = views.cameras[i].height, views.cameras[i].width
        distrusted.append((interpolate(wrong[None, None].float(), size=full, mode="nearest")[0, 0] > 0).reshape(-1))
        pixel, z, shown = camera.pixel_index(x)
        through = empty.reshape(-1).to(x.device)
        offset = torch.stack([depth, depth.masked_fill(through, torch.inf)])[:, pixel] - z
        measured = shown & (offset > -limit)
        total += torch.where(measured, offset.clamp_max(limit), 0)
        count += measured
        background += shown & through[pixel]
        visible += shown
    value = torch.where(count > 0, total / count.clamp_min(1), -limit)
    lattice = torch.full(voxels.row.shape, limit, device=x.device)
    lattice[tuple(voxels.corner.unbind(1))] = torch.where(background > OUTVOTED * visible, value[1], value[0])
    return Fusion(lattice, torch.cat(distrusted))


@torch.no_grad()
def render_view(voxels: DensityVoxels, camera: Camera) -> Composited:
    """Return what each pixel of a view sees of the voxels, row by row."""
    rays = camera.rays(dtype=torch.float32)
    parts = zip(rays.origin.split(CHUNK), rays.direction.split(CHUNK), strict=True)
    return Composited(*map(torch.cat, zip(*(voxels.render(Rays(o, d)) for o, d in parts), strict=True)))


def reduced(camera: Camera, largest: int) -> Camera:
    """Return a camera with at most `largest` pixels along its longer side."""
    factor = max(1.0, max(camera.width, camera.height) / largest)
    return camera.resized(round(camera.width / factor), round(camera.height / factor))

"""Smooth edges: pixels on outlines are looked through at several places."""

import torch
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.fields.base import Field
from warpdvr.intersection.base import Solver
from warpdvr.rendering.gradient import slope_cost
from warpdvr.rendering.surface import surface
from warpdvr.shading.srgb import encode, linear

SMOOTH = 3
"""Places along each axis at which pictures for people look through pixels on edges."""


STEP = 8.0
"""Neighbours whose depths differ by more are on an edge [width of a pixel where the nearer one is]."""


def _mean(field: Field, camera: Camera, intersect: Solver, pixel: Tensor, behind: Tensor, n: int) -> tuple[Tensor, int]:
    """Return the mean colours (k, 3) of pixels (k, 2) seen through n x n places in each, and the evaluations."""
    side = (torch.arange(n, device=pixel.device, dtype=pixel.dtype) + 0.5) / n - 0.5
    rays = camera.rays((pixel[:, None] + torch.cartesian_prod(side, side)).view(-1, 2))
    seen = surface(field, rays, intersect)
    light = linear(behind.repeat_interleave(n * n, 0)).index_copy(0, seen.hit.ray, linear(seen.color).to(behind))
    shading = (int(torch.is_grad_enabled()) + slope_cost(field)) * len(seen.hit.ray)
    return encode(light.view(-1, n * n, 3).mean(1)), seen.hit.evaluations + shading


def _edges(depth: Tensor, camera: Camera) -> Tensor:
    """Return the pixels (h, w) with a neighbour that hits where they do not or the other way, or `STEP` away."""
    far = torch.nn.functional.pad(depth.nan_to_num(torch.inf)[None, None], (1, 1, 1, 1), mode="replicate")
    nearest, farthest = (-torch.nn.functional.max_pool2d(-far, 3, 1), torch.nn.functional.max_pool2d(far, 3, 1))
    return ((farthest > nearest + STEP * camera.pixel_size(nearest).amin(-1)) & nearest.isfinite())[0, 0]

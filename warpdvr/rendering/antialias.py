"""Antialiasing: several rays through pixels on outlines."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.rays import pixel_centres
from warpdvr.fields.base import Field
from warpdvr.intersection.base import Solver
from warpdvr.rendering.surface import shaded
from warpdvr.runtime.memory import in_parts
from warpdvr.shading.shade import Shader, shade
from warpdvr.shading.srgb import encode, linear

SMOOTH = 3
"""Rays along each axis of a pixel on an edge, for pictures that people look at."""

STEP = 8.0
"""Neighbours whose depths differ by more are on an edge [width of a pixel at the nearer depth]."""


def smooth_edges(
    field: Field,
    camera: Camera,
    intersect: Solver,
    rgb: Float[Tensor, "n 3"],
    depth: Float[Tensor, " n"],
    background: Float[Tensor, "n 3"] | None,
    *,
    places: int,
    chunk: int,
    shader: Shader = shade,
) -> tuple[Float[Tensor, "n 3"], int]:
    """Return colours in which pixels on edges are the mean of several rays in linear light, and the evaluations.

    Args:
        field: of one shape.
        camera: the view, on the field's device; n = height * width.
        intersect: finds the surface.
        rgb: sRGB colours of the pixels' centres.
        depth: depth along the camera's forward axis at the pixels' centres, NaN where nothing is hit [scene unit].
        background: sRGB colours where no ray hits; None: they do not count, so that colours are straight.
        places: rays along each axis of a pixel.
        chunk: number of rays at a time.
        shader: colours surface points.
    """
    pixel = pixel_centres(camera.width, camera.height, camera.K.device)
    on_edge = torch.nonzero(_edges(depth.detach().view(camera.height, camera.width), camera).view(-1))[:, 0]

    def smooth(subset: Int[Tensor, " k"]) -> tuple[Float[Tensor, "k 3"], int]:
        behind = None if background is None else background[subset]
        return _mean(field, camera, intersect, pixel[subset], behind, places, shader)

    means, evaluations = zip(*in_parts(smooth, on_edge.split(max(1, chunk // places**2))), strict=True)
    return rgb.index_copy(0, on_edge, torch.cat(means)), sum(evaluations)


def _mean(
    field: Field,
    camera: Camera,
    intersect: Solver,
    pixel: Float[Tensor, "k 2"],
    background: Float[Tensor, "k 3"] | None,
    n: int,
    shader: Shader,
) -> tuple[Float[Tensor, "k 3"], int]:
    """Return the mean colours over n x n rays in each pixel, and the evaluations."""
    side = (torch.arange(n, device=pixel.device, dtype=pixel.dtype) + 0.5) / n - 0.5
    dtype = torch.promote_types(field.bounds.dtype, torch.float32)
    rays = camera.rays((pixel[:, None] + torch.cartesian_prod(side, side)).view(-1, 2), dtype=dtype)
    visible = shaded(field, rays, intersect, shader)
    ray, light = visible.hit.ray, linear(visible.color).to(dtype)
    if background is None:
        total = light.new_zeros(len(pixel), 4).index_add(
            0, ray // n**2, torch.nn.functional.pad(light, (0, 1), value=1.0)
        )
        return encode(total[:, :3] / total[:, 3:].clamp_min(1)), visible.evaluations
    backdrop = linear(background.repeat_interleave(n * n, 0))
    light = backdrop.index_copy(0, ray, light.to(background))
    return encode(light.view(-1, n * n, 3).mean(1)), visible.evaluations


def _edges(depth: Float[Tensor, "h w"], camera: Camera) -> Bool[Tensor, "h w"]:
    """Return which pixels have a neighbour that hits where they miss, or the reverse, or whose depth is `STEP` away."""
    far = torch.nn.functional.pad(depth.nan_to_num(torch.inf)[None, None], (1, 1, 1, 1), mode="replicate")
    nearest, farthest = (-torch.nn.functional.max_pool2d(-far, 3, 1), torch.nn.functional.max_pool2d(far, 3, 1))
    return ((farthest > nearest + STEP * camera.pixel_size(nearest).amin(-1)) & nearest.isfinite())[0, 0]

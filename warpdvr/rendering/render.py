"""From a field and a camera to an image."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.rays import Rays, pixel_centres
from warpdvr.fields.adapter import as_field
from warpdvr.fields.base import Field, FieldLike
from warpdvr.intersection.base import Solver, as_solver
from warpdvr.intersection.default import default_intersect
from warpdvr.intersection.hit import Status
from warpdvr.intersection.lowest import DEPTHS
from warpdvr.rendering.antialias import _edges, _mean
from warpdvr.rendering.gradient import slope_cost
from warpdvr.rendering.image import Image
from warpdvr.rendering.silhouette import soft_mask
from warpdvr.rendering.surface import Surface, surface
from warpdvr.rendering.visibility import VisibleImage, boundary

MEMORY = 512 << 20
"""Default memory budget of a render [byte]."""


def render(
    field: FieldLike,
    camera: Camera,
    *,
    intersect: Solver | None = None,
    background: Sequence[float] | Tensor = (1.0, 1.0, 1.0),
    silhouette: float | None = None,
    outline: bool = False,
    antialias: int = 1,
    memory: int = MEMORY,
) -> Image:
    """Render a field.

    Differentiable with respect to the field's weights and the camera where autograd is recording; call it under
    `torch.no_grad()` for a picture.

    Args:
        field: a `Field`, or what `as_field` makes one of.
        camera: the view.
        intersect: how the surface is found; by default `SphereTrace()` for fields with a Lipschitz bound, else
            `DenseMarch()`.
        background: sRGB colour where no ray hits, shape (3,) or (h, w, 3).
        silhouette: sharpness of the soft mask [1 / field value]; None leaves it out.
        outline: give `Image.rgb` the gradient by which outlines move, too; its values stay, see
        `warpdvr.rendering.visibility`. antialias: look through pixels on edges, where a neighbour sees something in
        front of or behind what they see,
            at so many places along each axis; their `rgb` is the mean in linear light. 1 takes the centre alone. With 3
            and without a `BoundGrid` that may cost as much as the rest of the picture.
        memory: about how much the evaluation of one chunk of rays may take [byte]. A recorded gradient comes on top.
    """
    field = as_field(field)
    if antialias < 1 or antialias != int(antialias):
        raise ValueError(f"render: antialias must be a whole number of places, at least 1, got {antialias}")
    solver = as_solver(intersect or default_intersect(field)).prepare(field)
    camera = camera.to(field.bounds.device)
    pixel = pixel_centres(camera.width, camera.height, camera.K.device)
    points = max(solver.points_per_ray, 1 if silhouette is None else DEPTHS + 1)
    chunk = max(1, memory // (bytes_per_point(field) * points))
    parts, tiles = [], _tiles(pixel, chunk)
    for tile in tiles:
        rays = camera.rays(pixel[tile])
        parts.append(_part(field, camera, rays, surface(field, rays, solver), silhouette))
    back = torch.cat(tiles).argsort()
    depth, normal, color, status, soft = (torch.cat([part[i] for part in parts])[back] for i in range(5))
    shape = camera.height, camera.width
    mask = (status == int(Status.HIT)).view(shape)
    behind = torch.as_tensor(background, dtype=color.dtype, device=color.device).expand(*shape, 3)
    rgb, evaluations = torch.where(mask[..., None], color.view(*shape, 3), behind), sum(part[5] for part in parts)
    if antialias > 1:
        edge = torch.nonzero(_edges(depth.detach().view(shape), camera).view(-1))[:, 0]
        flat = behind.reshape(-1, 3)
        for some in edge.split(max(1, chunk // antialias**2)):
            mean, asked = _mean(field, camera, solver, pixel[some], flat[some], antialias)
            rgb, evaluations = rgb.view(-1, 3).index_copy(0, some, mean).view_as(rgb), evaluations + asked
    if outline and torch.is_grad_enabled():
        rays = camera.rays(pixel)
        t = (depth / (rays.direction @ camera.pose[:3, 2].to(rays.direction))).detach()
        seen = VisibleImage(rays, (1, *shape), status, t, normal.detach(), behind.detach().reshape(-1, 3))
        moved, asked = boundary(field, seen, solver, chunk=chunk)
        rgb, evaluations = rgb + moved.view_as(rgb), evaluations + asked
    return Image(
        rgb=rgb,
        depth=depth.view(shape),
        normal=normal.view(*shape, 3),
        mask=mask,
        status=status.view(shape),
        evaluations=evaluations,
        silhouette=None if silhouette is None else soft.view(shape),
    )


def bytes_per_point(field: Field) -> int:
    """Return about how many bytes the evaluation of one point takes: what autograd would save for it, and a margin."""
    n, saved = 64, 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal saved
        if tensor.ndim and tensor.shape[0] == n:
            saved += tensor.numel() * tensor.element_size()
        return tensor

    low, high = field.bounds
    points = (low + (high - low) * torch.linspace(0.1, 0.9, n, device=low.device)[:, None]).requires_grad_()
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        field.geometry(points)
    return 256 + 2 * saved // n


def _part(field: Field, camera: Camera, rays: Rays, seen: Surface, sharpness: float | None) -> tuple[Any, ...]:
    n, ray = len(rays), seen.hit.ray
    forward = camera.pose[:3, 2].to(rays.direction)
    z = seen.t * (rays.direction[ray] * forward).sum(-1)  # a product of matrices rounds otherwise in other chunks
    depth = z.new_full((n,), torch.nan).index_copy(0, ray, z)
    normal = seen.normal.new_zeros(n, 3).index_copy(0, ray, seen.normal)
    color = seen.color.new_zeros(n, 3).index_copy(0, ray, seen.color)
    soft, asked = (z.new_zeros(n), 0) if sharpness is None else soft_mask(field, rays, seen.hit, sharpness)
    shading = (int(torch.is_grad_enabled()) + slope_cost(field)) * len(ray)
    return depth, normal, color, seen.hit.status, soft, seen.hit.evaluations + shading + asked


def _tiles(pixel: Tensor, most: int) -> list[Tensor]:
    """Return indices of pixels in parts of at most `most` that lie close together, because cones like neighbours."""
    if len(pixel) <= most:
        return [torch.arange(len(pixel), device=pixel.device)]
    side = max(1, math.isqrt(most))
    column, row = (pixel / side).floor().long().unbind(1)
    order = (row * (int(column.max()) + 1) + column).argsort(stable=True)
    return list(order.split(most))

"""From a field and a camera to an image."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from warpdvr.cameras.camera import Camera, Rays, pixel_centres
from warpdvr.fields.base import told
from warpdvr.intersection.grid import BoundGrid
from warpdvr.intersection.sphere import DenseMarch, Intersect, SphereTrace
from warpdvr.intersection.wavefront import Hit, Status
from warpdvr.rendering.gradient import gradient, normal_color, slope_cost, unit
from warpdvr.rendering.implicit import reattach
from warpdvr.rendering.silhouette import DEPTHS, soft_mask
from warpdvr.rendering.visibility import Seen, boundary
from warpdvr.runtime.files import replacing
from warpdvr.shading.srgb import encode, linear

MEMORY = 512 << 20
"""Default memory budget of a render [byte]."""

SMOOTH = 3
"""Places along each axis at which pictures for people look through pixels on edges."""

STEP = 8.0
"""Neighbours whose depths differ by more are on an edge [width of a pixel where the nearer one is]."""


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


@dataclass(frozen=True)
class Image:
    """A rendered view of h x w pixels."""

    rgb: Tensor
    """sRGB colour in [0, 1] over the background, shape (h, w, 3); differentiable, where outlines move if asked for."""
    depth: Tensor
    """Depth along the camera's forward axis (not ray length), shape (h, w) [scene unit]; differentiable, NaN where the
    ray does not hit."""
    normal: Tensor
    """Outward unit normal in the world, shape (h, w, 3), 0 where the ray does not hit; differentiable."""
    mask: Tensor
    """True where the ray hits, shape (h, w), bool."""
    status: Tensor
    """A `Status` for every pixel, shape (h, w), int32."""
    evaluations: int
    """How often the field was asked, counted in points: intersection, shading of the hits, and what else is there."""
    silhouette: Tensor | None = None
    """Soft mask in (0, 1), shape (h, w), if asked for: sigmoid(-sharpness * value) at the smallest value met on the ray
    (Yariv et al. 2020, eq. 7), behind the first surface too; differentiable with respect to the field."""

    def save(self, path: Path | str, what: str = "rgb") -> None:
        """Write an 8-bit picture of `rgb`, `normal`, `depth` (near is bright) or `mask`, as the suffix says."""
        with replacing(Path(path)) as unfinished:
            PIL.Image.fromarray(self.picture(what)).save(unfinished)

    def picture(self, what: str = "rgb") -> np.ndarray[Any, Any]:
        """Return `rgb`, `normal`, `depth` or `mask` as 8-bit values, shape (h, w, 3) or (h, w)."""
        if what == "rgb":
            shown = self.rgb
        elif what == "normal":
            shown = torch.where(self.mask[..., None], normal_color(self.normal), 1.0)
        elif what == "depth":
            shown = _bright_when_near(self.depth, self.mask)
        elif what == "mask":
            shown = self.mask.float()
        else:
            raise ValueError(f"image: cannot show {what!r}; known are rgb, normal, depth and mask")
        return (shown.detach().float().clamp(0, 1) * 255 + 0.5).to(torch.uint8).cpu().numpy()


def render(
    field: Any,
    camera: Camera,
    *,
    intersect: Intersect | None = None,
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
        field: any module that meets the contract of `warpdvr.Field`.
        camera: the view.
        intersect: how the surface is found; by default `SphereTrace()` for fields with a Lipschitz bound, else
            `DenseMarch()`.
        background: sRGB colour where no ray hits, shape (3,) or (h, w, 3).
        silhouette: sharpness of the soft mask [1 / field value]; None leaves it out.
        outline: give `Image.rgb` the gradient by which outlines move, too; its values stay, see `warpdvr.rendering.visibility`.
        antialias: look through pixels on edges, where a neighbour sees something in front of or behind what they see,
            at so many places along each axis; their `rgb` is the mean in linear light. 1 takes the centre alone. With 3
            and without a `BoundGrid` that may cost as much as the rest of the picture.
        memory: about how much the evaluation of one chunk of rays may take [byte]. A recorded gradient comes on top.
    """
    if antialias < 1 or antialias != int(antialias):
        raise ValueError(f"render: antialias must be a whole number of places, at least 1, got {antialias}")
    solver = intersect or default_intersect(field)
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
        seen = Seen(rays, (1, *shape), status, t, normal.detach(), behind.detach().reshape(-1, 3))
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


def surface(field: Any, rays: Rays, intersect: Intersect) -> Surface:
    """Return what the rays see, packed: only rays that hit. Differentiable where autograd is recording."""
    hit = intersect(field, rays)
    dtype = field.bounds.dtype
    field = told(field, rays.which, hit.ray)
    o, d = rays.origin[hit.ray].to(dtype), rays.direction[hit.ray].to(dtype)
    t = reattach(field.value, o, d, hit.t)
    x = o + t[:, None].to(dtype) * d
    _, slope, feature = gradient(field, x)
    normal = unit(slope)
    return Surface(hit, t, x, normal, field.color(x, normal, d, feature), slope.norm(dim=-1))


def default_intersect(field: Any) -> DenseMarch | SphereTrace:
    """Return the cheapest intersector that is safe for a field."""
    return DenseMarch() if getattr(field, "lipschitz", None) is None else SphereTrace()


def gridded_intersect(field: Any) -> tuple[Intersect, int]:
    """Return `default_intersect` with a `BoundGrid`, and how many points were asked for that.

    For many rays through a field that stays as it is: the grid asks 5e4 to 5e5 points, so it pays from a picture of
    about 200 x 200 on. Where weights change it must be made anew.
    """
    grid = BoundGrid(field)
    return replace(default_intersect(field), grid=grid), grid.evaluations


def bytes_per_point(field: Any) -> int:
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


def _part(field: Any, camera: Camera, rays: Rays, seen: Surface, sharpness: float | None) -> tuple[Any, ...]:
    n, ray = len(rays), seen.hit.ray
    forward = camera.pose[:3, 2].to(rays.direction)
    z = seen.t * (rays.direction[ray] * forward).sum(-1)  # a product of matrices rounds otherwise in other chunks
    depth = z.new_full((n,), torch.nan).index_copy(0, ray, z)
    normal = seen.normal.new_zeros(n, 3).index_copy(0, ray, seen.normal)
    color = seen.color.new_zeros(n, 3).index_copy(0, ray, seen.color)
    soft, asked = (z.new_zeros(n), 0) if sharpness is None else soft_mask(field, rays, seen.hit, sharpness)
    shading = (int(torch.is_grad_enabled()) + slope_cost(field)) * len(ray)
    return depth, normal, color, seen.hit.status, soft, seen.hit.evaluations + shading + asked


def _mean(
    field: Any, camera: Camera, intersect: Intersect, pixel: Tensor, behind: Tensor, n: int
) -> tuple[Tensor, int]:
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
    return ((farthest > nearest * (1 + STEP * camera.pixel)) & nearest.isfinite())[0, 0]


def _tiles(pixel: Tensor, most: int) -> list[Tensor]:
    """Return indices of pixels in parts of at most `most` that lie close together, because cones like neighbours."""
    if len(pixel) <= most:
        return [torch.arange(len(pixel), device=pixel.device)]
    side = max(1, math.isqrt(most))
    column, row = (pixel / side).floor().long().unbind(1)
    order = (row * (int(column.max()) + 1) + column).argsort(stable=True)
    return list(order.split(most))


def _bright_when_near(depth: Tensor, mask: Tensor) -> Tensor:
    if not mask.any():
        return torch.zeros_like(depth)
    low, high = depth[mask].min(), depth[mask].max()
    return torch.where(mask, 1 - 0.8 * (depth - low) / (high - low).clamp_min(1e-12), 0.0)

"""The pixels of a camera: rendered in tiles, recorded row by row."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.rays import Rays, pixel_centres
from warpdvr.fields.base import Field
from warpdvr.intersection.base import Solver
from warpdvr.intersection.hit import Status
from warpdvr.rendering.aggregate import Aggregation
from warpdvr.rendering.image import Image
from warpdvr.rendering.silhouette import soft_mask
from warpdvr.runtime.memory import in_parts
from warpdvr.shading.shade import Shader


@dataclass(frozen=True)
class Film:
    """The recorded values of n pixels, row by row."""

    color: Float[Tensor, "n 3"]
    """sRGB colour in [0, 1], 0 where the ray does not hit; differentiable."""
    depth: Float[Tensor, " n"]
    """Depth along the camera's forward axis, NaN where no surface is hit [scene unit]; differentiable."""
    normal: Float[Tensor, "n 3"]
    """Outward unit normal, 0 where the ray does not hit; differentiable."""
    status: Int[Tensor, " n"]
    """A `Status` for every pixel, int32."""
    flat: Bool[Tensor, " n"]
    """Whether the value has no slope where the ray hits."""
    soft: Float[Tensor, " n"] | None
    """Soft mask in (0, 1), None where it is left out; differentiable."""
    evaluations: int
    """Points at which the field was evaluated."""
    opacity: Float[Tensor, " n"] | None = None
    """How much of the background a pixel does not show, None if that is all where the ray hits; differentiable. The
    colour is multiplied by it."""

    @property
    def mask(self) -> Bool[Tensor, " n"]:
        """True where the ray hits."""
        return self.status == int(Status.HIT)

    def over(self, background: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Return sRGB colours: those recorded, and those of the background where no ray hits or light passes."""
        if self.opacity is not None:
            return self.color + (1 - self.opacity[:, None]) * background
        return torch.where(self.mask[:, None], self.color, background)

    def image(self, camera: Camera, rgb: Float[Tensor, "n 3"], evaluations: int) -> Image:
        """Return the image of a camera, with finished colours and the total number of evaluations."""
        shape = camera.height, camera.width
        return Image(
            rgb=rgb.view(*shape, 3),
            depth=self.depth.view(shape),
            normal=self.normal.view(*shape, 3),
            mask=self.mask.view(shape),
            status=self.status.view(shape),
            evaluations=evaluations,
            flat=int(self.flat.sum()),
            silhouette=None if self.soft is None else self.soft.view(shape),
            opacity=None if self.opacity is None else self.opacity.view(shape),
        )


def expose(
    field: Field,
    camera: Camera,
    intersect: Solver,
    *,
    aggregate: Aggregation,
    shader: Shader,
    sharpness: float | None,
    chunk: int,
) -> Film:
    """Render the centres of all pixels, at most `chunk` rays at a time, fewer where a device has no memory for them.

    Args:
        field: of one shape.
        camera: the view, on the field's device.
        intersect: finds the surface.
        aggregate: turns the points along a ray into its values.
        shader: colours surface points.
        sharpness: of the soft mask [1 / field value]; None leaves it out.
        chunk: number of rays.
    """
    pixel = pixel_centres(camera.width, camera.height, camera.K.device)
    order, back = tiles(camera.width, camera.height, chunk, camera.K.device)
    dtype = torch.promote_types(field.bounds.dtype, torch.float32)

    def record(tile: Int[Tensor, " k"]) -> Film:
        rays = camera.rays(pixel[tile], dtype=dtype)
        return _record(field, camera, rays, intersect, aggregate, shader, sharpness)

    return _in_rows(in_parts(record, order), back)


@lru_cache(maxsize=8)
def tiles(width: int, height: int, max_size: int, device: torch.device) -> tuple[Sequence[Tensor], Tensor]:
    """Return the indices of the pixels of an image in compact tiles of at most `max_size`, and the way back.

    Rows of 256, 64, 16 and 4 pixels are compact too, because neighbours share cones: pixels are in the order of a curve
    through squares of 16 x 16, and these in that of squares as large as a tile.

    Returns:
        The tiles, and for each pixel its place in all of them joined.
    """
    v, u = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    side = max(16, math.isqrt(max_size) // 16 * 16)
    place = torch.zeros_like(u)
    for size in (side, 16):
        place = (place * (height // size + 1) + v // size) * (width // size + 1) + u // size
    for bit in (3, 2, 1, 0):
        place = place * 4 + (v >> bit & 1) * 2 + (u >> bit & 1)
    order = place.flatten().argsort()
    return order.to(device).split(max_size), order.argsort().to(device)


def _record(
    field: Field,
    camera: Camera,
    rays: Rays,
    intersect: Solver,
    aggregate: Aggregation,
    shader: Shader,
    sharpness: float | None,
) -> Film:
    shown = aggregate(field, rays, intersect, shader)
    forward = camera.pose[:3, 2].to(rays.direction)
    hit = ~shown.t.isnan()
    t = torch.where(hit, shown.t, 0)  # a NaN would spoil the gradient of every ray's direction
    z = t * (rays.direction * forward).sum(-1)  # a product of matrices rounds otherwise in other chunks
    depth = torch.where(hit, z, torch.nan)
    soft, for_mask = (None, 0) if sharpness is None else soft_mask(field, rays, shown.hit, sharpness)
    evaluations = shown.evaluations + for_mask
    return Film(shown.color, depth, shown.normal, shown.hit.status, shown.flat, soft, evaluations, shown.opacity)


def _in_rows(films: Sequence[Film], back: Int[Tensor, " n"]) -> Film:
    """Join the films of tiles, or of parts of them, into one; `back` is the place of each pixel in them."""

    def joined(name: str) -> Any:
        parts = [getattr(film, name) for film in films]
        return None if parts[0] is None else torch.cat(parts)[back]

    names = ("color", "depth", "normal", "status", "flat", "soft", "opacity")
    return Film(**{name: joined(name) for name in names}, evaluations=sum(film.evaluations for film in films))

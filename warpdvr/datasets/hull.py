"""The visual hull of all masks (Laurentini 1994): which balls lie inside of it, without a grid; and its surface.

What lies outside of an image, or behind a camera, is unknown and not carved, as in views without a mask.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import grid_sample

from warpdvr.cameras.camera import Camera
from warpdvr.datasets.views import Views
from warpdvr.datasets.visual_hull import ball_images, summed_area
from warpdvr.geometry.isosurface import CORNERS, check_resolution, mesh_of_cells
from warpdvr.geometry.mesh import Mesh

CPU = torch.device("cpu")

BOUNDS = 1.1
"""Half the side of the cube that is carved [scene unit]; the object lies in the unit sphere, or nearly."""

COARSE = 8
"""Cells along a side of the largest blocks that are carved as one; a power of two."""

RINGS = ((0.0, 1), (0.5, 8), (1.0, 24))
"""Points at which a disc in a picture is looked up: shares of its radius, and how many on each circle."""

NOTHING = "hull: nothing is left of it: masks and cameras contradict each other; `warpdvr check-data` tells where"


def inside_hull(x: Float[Tensor, "n 3"], views: Views, *, radius: float = 0.0) -> Bool[Tensor, " n"]:
    """Return which balls lie entirely inside the visual hull: their images lie inside of all masks.

    Images of balls are bounded by discs, which are too large where a ball is not small beside its distance from the
    camera. Not differentiable.

    Args:
        x: their centres [scene unit].
        views: masks and cameras.
        radius: of the balls [scene unit]; 0 for points.
    """
    x, left = x.detach().float().cpu(), torch.arange(len(x))
    for outline in _outlines(views, CPU):
        left = left[~outline.shows_background(x[left], radius)]
    inside = torch.zeros(len(x), dtype=torch.bool)
    inside[left] = True
    return inside


def carve(views: Views, *, resolution: int = 320, device: torch.device = CPU) -> Mesh:
    """Return the surface of the visual hull in the frame and the unit of the data.

    Blocks of cells that a view sees in its background, or that all views see inside of their masks, are not divided
    further. In the cells that are left, outlines are interpolated between the pixels.

    Args:
        views: masks and cameras.
        resolution: cells along the longest side of a box around the hull.
        device: where it is carved; the mesh is on the CPU, as the views are.

    Raises:
        ValueError: if there is no mask, nothing is left of the hull, or the resolution makes no sense.
    """
    resolution = check_resolution(resolution, "hull: resolution")
    outlines = list(_outlines(views, device))
    if not outlines:
        raise ValueError("hull: no view has a mask, so there is nothing to carve it from")
    low, side, cells = _lattice(outlines, resolution)
    cell, crossing = _crossed_cells(outlines, low, side, cells)
    place, inverse = _corners(cell, cells + 1)
    value = torch.full((len(place),), -0.5, device=device)
    for outline, crossed in zip(outlines, crossing, strict=True):
        near = torch.zeros(len(place), dtype=torch.bool, device=device)
        near[inverse[crossed]] = True
        value[near] = torch.maximum(value[near], outline.beyond(low + side * place[near]))
    value[((place == 0) | (place == cells)).any(1)] = 0.5  # a hull that leaves the box is closed there
    mesh = mesh_of_cells(cell, value[inverse], low, side)
    if not len(mesh.faces):
        raise ValueError(NOTHING)
    return mesh.to(CPU).transformed(views.transform.matrix)


def _lattice(outlines: "list[_Outline]", resolution: int) -> tuple[Float[Tensor, "3"], float, Int[Tensor, "3"]]:
    """Return the lowest corner and the side of the cells, and how many there are along each axis, around the hull."""
    n = 64
    step = 2 * BOUNDS / n
    axis = BOUNDS * ((torch.arange(n, device=outlines[0].mask.device) + 0.5) / n * 2 - 1)
    centre = torch.cartesian_prod(axis, axis, axis)
    for outline in outlines:
        centre = centre[~outline.background(centre, 0.87 * step)[1]]
    if not len(centre):
        raise ValueError(NOTHING)
    low, high = centre.amin(0) - step, centre.amax(0) + step
    side = float((high - low).max()) / resolution
    return low, side, ((high - low) / side / COARSE - 1e-4).ceil().long() * COARSE


def _crossed_cells(
    outlines: "list[_Outline]", low: Float[Tensor, "3"], side: float, cells: Int[Tensor, "3"]
) -> tuple[Int[Tensor, "n 3"], list[Int[Tensor, " _"]]]:
    """Return the cells that the surface of the hull may cross, and, for each view, those that its outline crosses.

    Of the children of a block, a view sees only those whose parent its outline crosses: the others are as it was.
    """
    index, corners = partial(torch.arange, device=low.device), torch.tensor(CORNERS, device=low.device)
    cell, size = torch.cartesian_prod(*[index(0, n, COARSE) for n in cells.tolist()]), COARSE
    crossing = [index(len(cell)) for _ in outlines]
    while True:
        x, radius = low + side * (cell + size / 2), 0.87 * size * side
        carved, crossed = torch.zeros(2, len(cell), dtype=torch.bool, device=low.device)
        for i, outline in enumerate(outlines):
            left = crossing[i][~carved[crossing[i]]]
            some, only = outline.background(x[left], radius)
            carved[left[only]] = True
            crossing[i] = left[some]
            crossed[crossing[i]] = True
        at_end = ((cell == 0) | (cell + size == cells)).any(1)
        kept = (crossed | at_end) & ~carved
        new = kept.cumsum(0) - 1
        cell, crossing = cell[kept], [new[of_view[kept[of_view]]] for of_view in crossing]
        if size == 1:
            return cell, crossing
        size //= 2
        cell = (cell[:, None] + size * corners).reshape(-1, 3)
        crossing = [(8 * of_view[:, None] + index(8)).reshape(-1) for of_view in crossing]


def _corners(cell: Int[Tensor, "n 3"], size: Int[Tensor, "3"]) -> tuple[Int[Tensor, "m 3"], Int[Tensor, "n 8"]]:
    """Return the corners of cells in a lattice of `size` corners, each once, and which of them those of a cell are."""
    _, ny, nz = size.tolist()
    weight, corners = cell.new_tensor([ny * nz, nz, 1]), cell.new_tensor(CORNERS)
    key = (cell * weight).sum(1)[:, None] + (corners * weight).sum(1)  # no product of matrices: CUDA has none of int64
    key, inverse = torch.unique(key, return_inverse=True)
    return torch.stack([key // (ny * nz), key // nz % ny, key % nz], 1), inverse


def _outlines(views: Views, device: torch.device) -> "Iterator[_Outline]":
    for camera, mask in zip(views.cameras, views.masks, strict=True):
        if mask is not None:
            mask = mask.to(device)
            yield _Outline(camera.to(device), mask, summed_area(~mask))


@dataclass(frozen=True)
class _Outline:
    """What one view says about the hull."""

    camera: Camera
    mask: Bool[Tensor, "h w"]
    table: Int[Tensor, "_ _"]
    """The `summed_area` of the background."""

    @property
    def size(self) -> Int[Tensor, "2"]:
        """Width and height [pixel]."""
        return torch.tensor([self.camera.width, self.camera.height], device=self.mask.device)

    def project(
        self, x: Float[Tensor, "n 3"], radius: float
    ) -> tuple[Float[Tensor, "n 2"], Float[Tensor, " n"], Bool[Tensor, " n"]]:
        """Return pixels and radii of the images of balls [pixel], and which lie in front of the camera."""
        pose, K = self.camera.pose.detach().to(x), self.camera.K.detach().to(x)
        local = (x - pose[:3, 3]) @ pose[:3, :3]
        return ball_images(local, radius, self.camera.projection, K)

    def background(self, x: Float[Tensor, "n 3"], radius: float) -> tuple[Bool[Tensor, " n"], Bool[Tensor, " n"]]:
        """Return which squares around images of balls show background, and which show nothing else, in the image.

        The squares reach a pixel farther, since outlines are interpolated between pixels.
        """
        centre, reach, front = self.project(x, radius)
        first, last = (centre - reach[:, None] - 1).floor(), (centre + reach[:, None] + 1).floor() + 1
        whole = ((first >= 0) & (last <= self.size)).all(1)
        (u0, v0), (u1, v1) = (a.clamp_min(0).minimum(self.size).long().T for a in (first, last))
        count = self.table[v1, u1] - self.table[v0, u1] - self.table[v1, u0] + self.table[v0, u0]
        return front & (count > 0), front & whole & (count == (u1 - u0) * (v1 - v0))

    def shows_background(self, x: Float[Tensor, "n 3"], radius: float) -> Bool[Tensor, " n"]:
        """Return which balls have a part before the background."""
        near = self.background(x, radius)[0]
        centre, reach, _ = self.project(x[near], radius)
        shows = torch.zeros(len(centre), dtype=torch.bool, device=x.device)
        for offset in _disc():
            pixel = (centre + reach[:, None] * offset.to(x)).floor()
            seen = ((pixel >= 0) & (pixel < self.size)).all(1)
            u, v = torch.where(seen[:, None], pixel, 0.0).long().unbind(1)
            shows |= seen & ~self.mask[v, u]
        near[near.clone()] = shows
        return near

    def beyond(self, x: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        """Return 0.5 for points in the background, -0.5 on the object, and values between them across its outline."""
        centre, _, front = self.project(x, 0.0)
        place = 2 * centre / self.size - 1
        picture = (~self.mask).float()[None, None]
        value = grid_sample(picture, place[None, None], padding_mode="border", align_corners=False)[0, 0, 0] - 0.5
        return torch.where(front & (place.abs() <= 1).all(1), value, -0.5)


def _disc() -> Iterator[Float[Tensor, "2"]]:
    """Yield points of the unit disc."""
    for share, n in RINGS:
        for i in range(n):
            angle = 2 * math.pi * i / n
            yield share * torch.tensor([math.cos(angle), math.sin(angle)])

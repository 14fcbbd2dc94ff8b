"""Marching cubes: find the cells of a lattice that a field's surface crosses, and triangulate it there."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import warp as wp
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import max_pool3d

from warpdvr.fields.base import Field
from warpdvr.fields.empty import answered
from warpdvr.fields.gradient import value_and_gradient
from warpdvr.fields.slope import current_bound
from warpdvr.intersection.diagnosis import SIGN
from warpdvr.intersection.grid import BoundGrid
from warpdvr.runtime.launch import warp_scope
from warpdvr.runtime.memory import in_parts

CHUNK = 1 << 17
"""Number of points in one evaluation of a field."""


def triangulate(
    solid: "Solid", lattice: "Lattice", grid: BoundGrid | None
) -> tuple[Float[Tensor, "n 3"], Int[Tensor, "m 3"]]:
    """Return vertices [scene unit] and faces of the surface, wound so that the solid lies behind them.

    The field is evaluated only where the grid does not exclude the surface; without a grid, where the Lipschitz bound
    does not; without either, everywhere.
    """
    if grid is None and solid.lipschitz is not None:
        return sparse_marching_cubes(solid.values, lattice.low, lattice.high, lattice.cells, solid.lipschitz)
    slabs = _crossed_cells(solid, lattice) if grid is None else _crossed_cells_near_grid(solid, lattice, grid)
    cells, corners = zip(*slabs, strict=True)
    vertices, faces = marching_cubes(torch.cat(cells), torch.cat(corners))
    return lattice.low + lattice.step * vertices, faces


class Solid:
    """The part of a field inside its bounds, extended to a function of all points in space."""

    def __init__(self, field: Field):
        self.field, (self.lipschitz, _) = field, current_bound(field)
        self.low, self.high = field.bounds.detach().float()
        self.min_value, self.max_value = float("inf"), float("-inf")

    def clamped(self, x: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        """Return the field's values at the points, clamped to the bounds first."""
        value: Tensor = answered(self.field.value, x.clamp(self.low, self.high).to(self.field.bounds.dtype)).float()
        if len(x):
            low, high = torch.stack(value.detach().aminmax()).tolist()
            if not math.isfinite(high - low):
                raise ValueError("extract: the field has values inside its bounds that are not finite numbers")
            self.min_value, self.max_value = min(low, self.min_value), max(high, self.max_value)
        return value

    def extended(self, x: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        """Return values that are never negative outside the bounds and that keep the Lipschitz bound."""
        value, out = self.clamped(x), torch.maximum(self.low - x, x - self.high).amax(-1)
        if self.lipschitz is None:
            return torch.where(out > 0, value.abs(), value)
        return torch.maximum(value, self.lipschitz * out)

    def values(self, x: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        """Return `extended` of any number of points, without gradients."""
        with torch.no_grad():
            return torch.cat(in_parts(self.extended, x.split(CHUNK)))

    def contains(self, x: Float[Tensor, "n 3"]) -> Bool[Tensor, " n"]:
        """Return which of any number of points inside the bounds have a negative value."""
        with torch.no_grad():
            return torch.cat(in_parts(self.clamped, x.split(CHUNK))) < 0

    def slopes(self, x: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 3"]]:
        """Return the values and gradients at any number of points inside the bounds."""
        with torch.no_grad():
            parts = in_parts(partial(value_and_gradient, self.clamped), x.split(CHUNK))
        value, slope = zip(*parts, strict=True)
        return torch.cat(value), torch.cat(slope)

    def check(self) -> None:
        """Raise a ValueError if the field keeps one sign inside its bounds."""
        if not self.min_value < 0 < self.max_value:
            axes = [torch.linspace(a, b, 17) for a, b in zip(self.low.tolist(), self.high.tolist(), strict=True)]
            self.values(torch.cartesian_prod(*axes).to(self.low))  # for the range in the message
            raise ValueError(
                "extract: the field has no surface inside its bounds: "
                f"its values lie in [{self.min_value:.4g}, {self.max_value:.4g}]; {SIGN}"
            )


@dataclass(frozen=True)
class Lattice:
    """Cells that cover a box; the outermost corners lie half a cell outside it."""

    low: Float[Tensor, "3"]
    """The lowest corner [scene unit]."""
    step: Float[Tensor, "3"]
    """Sides of a cell [scene unit]."""
    cells: tuple[int, int, int]
    """Number of cells along each axis."""

    @classmethod
    def around(cls, bounds: Float[Tensor, "2 3"], resolution: int) -> "Lattice":
        """Return the lattice over `bounds` [scene unit] with `resolution` cells along the longest side."""
        low, high = bounds.detach().float()
        side = high - low
        cells_inside = (side / side.max() * resolution - 1e-4).ceil().clamp_min(1)
        step = side / cells_inside
        x, y, z = (cells_inside.int() + 1).tolist()
        return cls(low - step / 2, step, (x, y, z))

    @property
    def high(self) -> Float[Tensor, "3"]:
        """The highest corner [scene unit]."""
        return self.low + self.step * torch.tensor(self.cells).to(self.step)

    def corners(self, first: int, last: int) -> Float[Tensor, "n 3"]:
        """Return the corners in the planes first <= x < last [scene unit]."""
        axes = [torch.arange(first, last), *(torch.arange(n + 1) for n in self.cells[1:])]
        return self.low + self.step * torch.cartesian_prod(*axes).to(self.step)


def _crossed_cells(solid: Solid, lattice: Lattice) -> Iterator[tuple[Int[Tensor, "n 3"], Float[Tensor, "n 8"]]]:
    """Yield the cells with values of both signs and the values at their corners, slab by slab."""
    x, y, z = (n + 1 for n in lattice.cells)
    slab_planes = max(CHUNK // (y * z), 1)
    slab = solid.values(lattice.corners(0, 1)).reshape(1, y, z)
    for first in range(1, x, slab_planes):
        last = min(first + slab_planes, x)
        slab = torch.cat([slab[-1:], solid.values(lattice.corners(first, last)).reshape(-1, y, z)])
        corner = torch.stack(
            [slab[i : i + last - first, j : j + y - 1, k : k + z - 1] for i, j, k in cube_corners()], -1
        )
        inside = (corner < 0).sum(-1)
        cell = ((inside > 0) & (inside < 8)).nonzero()
        yield (cell + cell.new_tensor([first - 1, 0, 0])).int(), corner[tuple(cell.T)]


def _crossed_cells_near_grid(solid: Solid, lattice: Lattice, grid: BoundGrid) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the same cells in the same order, asking only at corners of those that the grid does not exclude."""
    x, y, z = lattice.cells
    subdivision = int(
        (lattice.step / grid.layout.side * 2 ** (grid.layout.levels - 1) - 1e-3).ceil().amax().clamp_min(1)
    )
    slab_planes = max(4 * CHUNK // (y * z * subdivision**3), 1)
    for first in range(0, x, slab_planes):
        last = min(first + slab_planes, x)
        cell = _open_cells(solid, lattice, grid, (first, last), subdivision)
        corner_index = cell[:, None] + torch.tensor(cube_corners(), device=cell.device)
        i, j, k = corner_index.unbind(-1)
        key, inverse_index = torch.unique((i * (y + 1) + j) * (z + 1) + k, return_inverse=True)
        at = torch.stack([key // ((y + 1) * (z + 1)), key // (z + 1) % (y + 1), key % (z + 1)], 1)
        corner = solid.values(lattice.low + lattice.step * at.to(lattice.step))[inverse_index]
        inside = (corner < 0).sum(-1)
        crossed = (inside > 0) & (inside < 8)
        yield cell[crossed].int(), corner[crossed]


def _open_cells(
    solid: Solid, lattice: Lattice, grid: BoundGrid, slab: tuple[int, int], subdivision: int
) -> Int[Tensor, "n 3"]:
    """Return the cells of a slab that the grid does not prove to lie entirely on one side of the surface.

    The grid is looked up `subdivision` times along each side of a cell, so densely that no box of the grid falls
    between two look-ups. Corners outside the bounds count as outside the solid.
    """
    first, last = slab
    ranges = (first, last), *((0, n) for n in lattice.cells[1:])
    steps = [torch.arange(a * subdivision, b * subdivision + 1) for a, b in ranges]
    x = lattice.low + lattice.step / subdivision * torch.cartesian_prod(*steps).to(lattice.step)
    sign = grid.signs(x.clamp(solid.low, solid.high))
    out = ((x < solid.low) | (x > solid.high)).any(1)
    sign = torch.where(out, sign.clamp_min(0), sign).view([len(s) for s in steps]).float()[None, None]
    any_outside, any_inside = (max_pool3d(s * sign, subdivision + 1, subdivision)[0, 0] for s in (1, -1))
    cell = ((any_outside >= 0) & (any_inside >= 0)).nonzero()
    return cell + cell.new_tensor([first, 0, 0])


def marching_cubes(
    cell: Int[Tensor, "n 3"], corner: Float[Tensor, "n 8"]
) -> tuple[Float[Tensor, "v 3"], Int[Tensor, "m 3"]]:
    """Triangulate {value = 0} in the given cells of a grid.

    Args:
        cell: the lowest corner of each cell, no cell twice.
        corner: the values at the corners of each cell in the order of `cube_corners`, float32.

    Returns:
        Vertices in grid units and faces, int64, wound so that negative values lie behind them.
    """
    with warp_scope(cell.device) as device:
        values = wp.from_torch(corner.reshape(-1).contiguous(), requires_grad=False)
        cells = wp.from_torch(cell.int().contiguous(), dtype=wp.vec3i)
        import warp.geometry as wg

        vertices, index = wg.sparse_marching_cubes_from_cells(cells, values, device=device)
        return wp.to_torch(vertices).clone(), wp.to_torch(index).reshape(-1, 3).long()


def sparse_marching_cubes(
    value: Callable[[Tensor], Tensor],
    low: Float[Tensor, "3"],
    high: Float[Tensor, "3"],
    cells: Sequence[int],
    lipschitz: float,
) -> tuple[Float[Tensor, "v 3"], Int[Tensor, "m 3"]]:
    """Triangulate {value = 0} in a box, evaluating only near the surface.

    Args:
        value: maps points (n, 3) to values (n,); called for many points at once.
        low, high: corners of the box.
        cells: number of cells along each axis.
        lipschitz: an upper bound of |grad value|; where it is too small, pieces vanish silently.

    Returns:
        Vertices in the units of the box and faces, int64, wound so that negative values lie behind them.
    """

    def batch(points: Any) -> Any:
        with torch.no_grad():
            return wp.from_torch(value(wp.to_torch(points)).float().contiguous(), requires_grad=False)

    with warp_scope(low.device) as device:
        x, y, z = (n + 1 for n in cells)
        lower, upper = wp.vec3(*low.tolist()), wp.vec3(*high.tolist())
        import warp.geometry as wg

        surface: Any = wg.sparse_marching_cubes(
            batch, x, y, z, lower=lower, upper=upper, lipschitz_bound=lipschitz, device=device
        )
        vertices, index = surface
        return wp.to_torch(vertices).clone(), wp.to_torch(index).reshape(-1, 3).long()


def cube_corners() -> tuple[tuple[int, int, int], ...]:
    """Return the corners of a cell in the order that `marching_cubes` expects."""
    import warp.geometry as wg

    offsets: tuple[tuple[int, int, int], ...] = wg.IsoSurfaceMarchingCubes.CUBE_CORNER_OFFSETS
    return offsets

"""The surface of a field as a closed triangle mesh."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from warpdvr.bridge import CORNERS, marching_cubes, sparse_marching_cubes
from warpdvr.mesh import Mesh, vertex_normals

CHUNK = 1 << 17
"""Number of points in one evaluation of a field."""


def extract(field: Any, *, resolution: int = 192, project: int = 2, colors: bool = True, largest: bool = False) -> Mesh:
    """Extract the surface of a field as a closed mesh with normals.

    What lies outside of the field's bounds counts as outside of the surface: a surface that leaves them is closed there
    by a cap. With a `field.lipschitz`, only places near the surface are asked, 10 to 20 per vertex; that bound must
    hold, or pieces vanish. Without one, every corner of the grid is asked: about resolution cubed points.

    Args:
        field: the `Field`; its bounds say on which device the work is done.
        resolution: number of cells along the longest side of the bounds.
        project: number of Newton steps that pull each vertex onto the surface, each at most half a cell.
        colors: ask the field for colours, seen along the normals.
        largest: keep only the connected piece with the largest area; the wall of a cavity is a piece of its own.

    Raises:
        ValueError: if the field has no surface inside its bounds, or has values that are not numbers.
    """
    if resolution < 1:
        raise ValueError(f"extract: resolution must be at least 1, got {resolution}")
    solid, grid = _Solid(field), _Grid.around(field.bounds, resolution)
    vertices, faces = _triangulate(solid, grid)
    solid.check()
    vertices, slope = _project(solid, grid, vertices, project)
    faces = _without_slivers(vertices, faces, 1e-6 * float(grid.step.min()) ** 2)
    faces = _largest_piece(vertices, faces) if largest else faces
    kept, faces = torch.unique(faces, return_inverse=True)
    vertices, slope = vertices[kept], slope[kept]
    flat = slope.norm(dim=-1, keepdim=True) < 1e-12
    normals = torch.where(
        flat, vertex_normals(vertices, faces), torch.nn.functional.normalize(slope, dim=-1, eps=1e-12)
    )
    return Mesh(vertices, faces, normals, _colors(field, vertices, normals) if colors else None)


class _Solid:
    """The part of a field that lies inside of its bounds, as a function of points anywhere."""

    def __init__(self, field: Any):
        self.field, self.lipschitz = field, getattr(field, "lipschitz", None)
        self.low, self.high = field.bounds.detach().float()
        self.least, self.most = float("inf"), float("-inf")

    def inside(self, x: Tensor) -> Tensor:
        """Return the field's values (n,) at points that are moved into the bounds first."""
        value: Tensor = self.field.value(x.clamp(self.low, self.high).to(self.field.bounds.dtype)).float()
        least, most = torch.stack(value.detach().aminmax()).tolist() if len(x) else (0.0, 0.0)
        if not math.isfinite(most - least):
            raise ValueError("extract: the field has values inside its bounds that are not finite numbers")
        self.least, self.most = min(least, self.least), max(most, self.most)
        return value

    def anywhere(self, x: Tensor) -> Tensor:
        """Return values (n,) that are never negative outside of the bounds, and that keep the Lipschitz bound."""
        value, out = self.inside(x), torch.maximum(self.low - x, x - self.high).amax(-1)
        if self.lipschitz is None:
            return torch.where(out > 0, value.abs(), value)
        return torch.maximum(value, self.lipschitz * out)

    def values(self, x: Tensor) -> Tensor:
        """Return `anywhere` of any number of points, without gradients."""
        with torch.no_grad():
            return torch.cat([self.anywhere(part) for part in torch.split(x, CHUNK)])

    def full(self, x: Tensor) -> Tensor:
        """Return which of any number of points inside the bounds, (n,), have a negative value."""
        with torch.no_grad():
            return torch.cat([self.inside(part) < 0 for part in torch.split(x, CHUNK)])

    def slopes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the values (n,) and gradients (n, 3) at any number of points inside the bounds."""
        parts = [_value_and_slope(self.inside, part) for part in torch.split(x, CHUNK)]
        value, slope = zip(*parts, strict=True)
        return torch.cat(value), torch.cat(slope)

    def check(self) -> None:
        """Raise a ValueError if the field keeps one sign inside its bounds."""
        if not self.least < 0 < self.most:
            axes = [torch.linspace(a, b, 17) for a, b in zip(self.low.tolist(), self.high.tolist(), strict=True)]
            self.values(torch.cartesian_prod(*axes).to(self.low))  # look around, to say what is there
            raise ValueError(
                "extract: the field has no surface inside its bounds: "
                f"its values lie in [{self.least:.4g}, {self.most:.4g}]"
            )


@dataclass(frozen=True)
class _Grid:
    """Cells around a box; the outermost corners lie half a cell outside of it."""

    low: Tensor
    """The first corner, shape (3,) [scene unit]."""
    step: Tensor
    """Sides of a cell, shape (3,) [scene unit]."""
    cells: tuple[int, int, int]
    """Number of cells along each axis."""

    @classmethod
    def around(cls, bounds: Tensor, resolution: int) -> "_Grid":
        low, high = bounds.detach().float()
        side = high - low
        within = (side / side.max() * resolution - 1e-4).ceil().clamp_min(1)
        step = side / within
        x, y, z = (within.int() + 1).tolist()
        return cls(low - step / 2, step, (x, y, z))

    @property
    def high(self) -> Tensor:
        return self.low + self.step * torch.tensor(self.cells).to(self.step)

    def corners(self, first: int, last: int) -> Tensor:
        """Return the corners in the planes first <= x < last, shape (n, 3) [scene unit]."""
        axes = [torch.arange(first, last), *(torch.arange(n + 1) for n in self.cells[1:])]
        return self.low + self.step * torch.cartesian_prod(*axes).to(self.step)


def _triangulate(solid: _Solid, grid: _Grid) -> tuple[Tensor, Tensor]:
    if solid.lipschitz is not None:
        return sparse_marching_cubes(solid.values, grid.low, grid.high, grid.cells, solid.lipschitz)
    cell, corner = _crossed(solid, grid)
    vertices, faces = marching_cubes(cell, corner)
    return grid.low + grid.step * vertices, faces


def _crossed(solid: _Solid, grid: _Grid) -> tuple[Tensor, Tensor]:
    """Return the cells with values of both signs (n, 3) and the values at their corners (n, 8), slab by slab."""
    x, y, z = (n + 1 for n in grid.cells)
    thick = max(CHUNK // (y * z), 1)
    found = []
    slab = solid.values(grid.corners(0, 1)).reshape(1, y, z)
    for first in range(1, x, thick):
        last = min(first + thick, x)
        slab = torch.cat([slab[-1:], solid.values(grid.corners(first, last)).reshape(-1, y, z)])
        corner = torch.stack([slab[i : i + last - first, j : j + y - 1, k : k + z - 1] for i, j, k in CORNERS], -1)
        inside = (corner < 0).sum(-1)
        cell = ((inside > 0) & (inside < 8)).nonzero()
        found.append((cell + cell.new_tensor([first - 1, 0, 0]), corner[tuple(cell.T)]))
    cells, corners = zip(*found, strict=True)
    return torch.cat(cells).int(), torch.cat(corners)


def _project(solid: _Solid, grid: _Grid, x: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Return the points after Newton steps onto {value = 0}, and the outward directions there.

    A step is at most half a cell long; one that would make a point worse is not made, and the next one is shorter.
    Points of a cap go to the side of the box.
    """
    x, outward = _capped(solid, grid, x)
    cap = outward.any(1)
    reach = most = torch.full_like(x[:, :1], 0.5 * float(grid.step.min()))
    value, slope = solid.slopes(x)
    for _ in range(steps):
        length = slope.norm(dim=-1, keepdim=True).clamp_min(1e-18)
        reach = torch.minimum(reach, value[:, None].abs() / length)
        moved = (x - reach * value[:, None].sign() * slope / length).clamp(solid.low, solid.high)
        new_value, new_slope = solid.slopes(moved)
        better = (new_value.abs() < value.abs()) & ~cap
        value = torch.where(better, new_value, value)
        x, slope = (torch.where(better[:, None], a, b) for a, b in ((moved, x), (new_slope, slope)))
        reach = torch.where(better[:, None], most, reach / 4)
    return x, torch.where(cap[:, None], outward, slope)


def _capped(solid: _Solid, grid: _Grid, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the points, those of a cap moved onto the box, and the box's normal there, 0 for all others.

    A vertex between the two outermost layers of corners belongs to a cap if the field is negative on the box beside it.
    """
    side = (x - (solid.low + solid.high) / 2).sign()
    shell = (side * x - torch.where(side > 0, solid.high, -solid.low)) / grid.step > -0.499
    onto = torch.where(shell, torch.where(side > 0, solid.high, solid.low), x)
    cap = shell.any(1)
    cap[cap.clone()] = solid.full(onto[cap])
    return torch.where(cap[:, None], onto, x.clamp(solid.low, solid.high)), side * (shell & cap[:, None])


def _value_and_slope(value: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        f = value(x)
        (slope,) = torch.autograd.grad(f.sum(), x)
    return f.detach(), slope


def _without_slivers(vertices: Tensor, faces: Tensor, area: float) -> Tensor:
    """Return faces over the same vertices: the shortest side of each face below `area` is closed.

    To leave such faces out would tear the mesh open, and so may closing a side where the surface nearly touches
    itself: a sweep that does so is not made.
    """
    for _ in range(4):
        corner = vertices[faces].double()
        side = corner.roll(-1, 1) - corner
        small = torch.linalg.cross(side[:, 0], side[:, 1]).norm(dim=-1) < 2 * area
        if not small.any():
            break
        shortest = side[small].norm(dim=-1).argmin(1)
        ends = torch.stack([faces[small].gather(1, (shortest[:, None] + i) % 3)[:, 0] for i in (0, 1)], 1)
        closed = _joined(len(vertices), ends)[faces]
        closed = closed[(closed != closed.roll(1, 1)).all(1)]
        if not _is_closed(closed):
            break
        faces = closed
    return faces


def _largest_piece(vertices: Tensor, faces: Tensor) -> Tensor:
    """Return the faces of the connected piece with the largest area; of equal ones, the one with the first vertex."""
    a, b, c = vertices[faces].double().unbind(1)
    piece = _joined(len(vertices), torch.cat([faces[:, :2], faces[:, 1:]]))[faces[:, 0]]
    area = a.new_zeros(len(vertices)).index_add_(0, piece, torch.linalg.cross(b - a, c - a).norm(dim=-1))
    return faces[piece == area.argmax()]


def _joined(n: int, pairs: Tensor) -> Tensor:
    """Return for each of n vertices the smallest one that a chain of pairs leads to, shape (n,).

    Each sweep hooks the roots of a pair onto the smaller one and halves the chains, so that few sweeps are needed.
    """
    label = torch.arange(n, device=pairs.device)
    for _ in range(n):
        ends = label[pairs]
        new = label.scatter_reduce(0, ends.reshape(-1), ends.amin(1).repeat_interleave(2), "amin")
        new = new[new]
        if torch.equal(new, label):
            break
        label = new
    return label


def _is_closed(faces: Tensor) -> bool:
    """Tell whether two faces meet at every side."""
    a, b = torch.cat([faces, faces.roll(-1, 1)]).reshape(2, -1).sort(0).values
    return bool((torch.unique(a * (int(faces.max()) + 1) + b, return_counts=True)[1] == 2).all())


def _colors(field: Any, x: Tensor, normal: Tensor) -> Tensor:
    parts = []
    with torch.no_grad():
        for p, n in zip(torch.split(x, CHUNK), torch.split(normal, CHUNK), strict=True):
            p, n = p.to(field.bounds.dtype), n.to(field.bounds.dtype)
            parts.append(field.color(p, n, -n, field.geometry(p)[1]))
    return torch.cat(parts).float().clamp(0, 1)

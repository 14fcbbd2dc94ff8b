"""The surface of a field as a closed triangle mesh."""

import torch
from torch import Tensor

from warpdvr.fields.adapter import as_field
from warpdvr.fields.base import Field, FieldLike
from warpdvr.geometry.marching_cubes import CHUNK, Lattice, Solid, triangulate
from warpdvr.geometry.mesh import Mesh, vertex_normals
from warpdvr.intersection.grid import BoundGrid
from warpdvr.shading.shade import SurfacePoints, shade


def extract(
    field: FieldLike,
    *,
    resolution: int = 192,
    project: int = 2,
    colors: bool = True,
    largest: bool = False,
    cavities: bool = True,
    grid: BoundGrid | bool = True,
) -> Mesh:
    """Extract the surface of a field as a closed mesh with normals.

    What lies outside of the field's bounds counts as outside of the surface: a surface that leaves them is closed there
    by a cap. A field with a `lipschitz` bound is evaluated near the surface only, at 10 to 20 points per vertex; that
    bound must hold, or pieces vanish. Other fields are evaluated where a `BoundGrid` does not exclude the surface.

    Args:
        field: a `Field`, or what `as_field` makes one of; its bounds say on which device the work is done.
        resolution: number of cells along the longest side of the bounds.
        project: number of Newton steps that pull each vertex onto the surface, each at most half a cell.
        colors: give the vertices the field's colours, as seen along the normals.
        largest: keep only the connected piece with the largest area; the wall of a cavity is a piece of its own.
        cavities: keep the walls of closed cavities, which nobody sees from outside; a field that was fitted to
            photographs has accidental ones.
        grid: a `BoundGrid` of the field, if there is one already. True makes one of 64 boxes along the longest side for
            a field without a Lipschitz bound, if the resolution is higher; False evaluates such a field at all corners,
            about resolution cubed points.

    Raises:
        ValueError: if the field has no surface inside its bounds, or has values that are not numbers.
    """
    if resolution < 1:
        raise ValueError(f"extract: resolution must be at least 1, got {resolution}")
    field = as_field(field)
    solid, lattice = Solid(field), Lattice.around(field.bounds, resolution)
    if isinstance(grid, bool):
        grid_pays = grid and solid.lipschitz is None and resolution > 64
        bound_grid = BoundGrid(field, cells=64, finest=128 if resolution > 128 else 64) if grid_pays else None
    else:
        bound_grid = grid
        bound_grid.check(field)
    vertices, faces = triangulate(solid, lattice, bound_grid)
    solid.check()
    vertices, slope = _newton_projected(solid, lattice, vertices, project)
    faces = _without_slivers(vertices, faces, 1e-6 * float(lattice.step.min()) ** 2)
    faces = faces if cavities else _without_cavities(vertices, faces)
    faces = _largest_piece(vertices, faces) if largest else faces
    used, faces = torch.unique(faces, return_inverse=True)
    vertices, slope = vertices[used], slope[used]
    flat = slope.norm(dim=-1, keepdim=True) < 1e-12
    normals = torch.where(
        flat, vertex_normals(vertices, faces), torch.nn.functional.normalize(slope, dim=-1, eps=1e-12)
    )
    return Mesh(vertices, faces, normals, _colors(field, vertices, normals) if colors else None)


def _newton_projected(solid: Solid, lattice: Lattice, x: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Return the points after Newton steps onto {value = 0}, and the outward directions there.

    A step is at most half a cell long; one that would make a point worse is not made, and the next one is shorter.
    Points of a cap go to the side of the box.
    """
    x, outward = _with_caps(solid, lattice, x)
    cap = outward.any(1)
    max_step = half_cell = torch.full_like(x[:, :1], 0.5 * float(lattice.step.min()))
    value, slope = solid.slopes(x)
    for _ in range(steps):
        length = slope.norm(dim=-1, keepdim=True).clamp_min(1e-18)
        max_step = torch.minimum(max_step, value[:, None].abs() / length)
        candidate = (x - max_step * value[:, None].sign() * slope / length).clamp(solid.low, solid.high)
        new_value, new_slope = solid.slopes(candidate)
        improved = (new_value.abs() < value.abs()) & ~cap
        value = torch.where(improved, new_value, value)
        x, slope = (torch.where(improved[:, None], a, b) for a, b in ((candidate, x), (new_slope, slope)))
        max_step = torch.where(improved[:, None], half_cell, max_step / 4)
    return x, torch.where(cap[:, None], outward, slope)


def _with_caps(solid: Solid, lattice: Lattice, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the points, those of a cap moved onto the box, and the box's normal there, 0 for all others.

    A vertex between the two outermost layers of corners belongs to a cap if the field is negative on the box beside it.
    """
    side = (x - (solid.low + solid.high) / 2).sign()
    shell = (side * x - torch.where(side > 0, solid.high, -solid.low)) / lattice.step > -0.499
    on_box = torch.where(shell, torch.where(side > 0, solid.high, solid.low), x)
    cap = shell.any(1)
    cap[cap.clone()] = solid.contains(on_box[cap])
    return torch.where(cap[:, None], on_box, x.clamp(solid.low, solid.high)), side * (shell & cap[:, None])


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
        collapsed = _component_roots(len(vertices), ends)[faces]
        collapsed = collapsed[(collapsed != collapsed.roll(1, 1)).all(1)]
        if not _is_closed(collapsed):
            break
        faces = collapsed
    return faces


def _largest_piece(vertices: Tensor, faces: Tensor) -> Tensor:
    """Return the faces of the connected piece with the largest area; of equal ones, the one with the first vertex."""
    a, b, c = vertices[faces].double().unbind(1)
    piece = _pieces(vertices, faces)
    area = a.new_zeros(len(vertices)).index_add_(0, piece, torch.linalg.cross(b - a, c - a).norm(dim=-1))
    return faces[piece == area.argmax()]


def _without_cavities(vertices: Tensor, faces: Tensor) -> Tensor:
    """Return the faces of the pieces that enclose a positive volume: the wall of a cavity is wound the other way."""
    a, b, c = (vertices - vertices.mean(0))[faces].double().unbind(1)
    piece = _pieces(vertices, faces)
    volume = a.new_zeros(len(vertices)).index_add_(0, piece, (a * torch.linalg.cross(b, c)).sum(-1))
    return faces[volume[piece] > 0]


def _pieces(vertices: Tensor, faces: Tensor) -> Tensor:
    """Return for each face the first vertex of its connected piece, shape (m,)."""
    return _component_roots(len(vertices), torch.cat([faces[:, :2], faces[:, 1:]]))[faces[:, 0]]


def _component_roots(n: int, pairs: Tensor) -> Tensor:
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


def _colors(field: Field, x: Tensor, normal: Tensor) -> Tensor:
    parts = []
    with torch.no_grad():
        for p, n in zip(torch.split(x, CHUNK), torch.split(normal, CHUNK), strict=True):
            p, n = p.to(field.bounds.dtype), n.to(field.bounds.dtype)
            parts.append(shade(SurfacePoints(field, p, n, -n, field.geometry(p)[1])))
    return torch.cat(parts).float().clamp(0, 1)

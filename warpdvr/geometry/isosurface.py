"""The surface of a field as a closed triangle mesh."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from warpdvr.fields.adapter import as_field
from warpdvr.fields.base import Field, FieldLike
from warpdvr.geometry.marching_cubes import CHUNK, Lattice, Solid, cube_corners, marching_cubes, triangulate
from warpdvr.geometry.mesh import Mesh, vertex_normals
from warpdvr.intersection.diagnosis import INSIDE_OUT, is_inside_out
from warpdvr.intersection.grid import BoundGrid
from warpdvr.intersection.surface_box import surface_box
from warpdvr.runtime.arguments import check_switches, plain, whole
from warpdvr.runtime.inference_mode import outside_inference
from warpdvr.runtime.memory import in_parts, out_of_memory
from warpdvr.runtime.validate import refuse_class
from warpdvr.shading.shade import SurfacePoints, shade

MAX_RESOLUTION = 2048
"""Largest number of cells along the longest side of the bounds; a finer mesh exceeds the memory of most computers."""

DEBRIS = 0.005
"""Where photographs are fitted, pieces that enclose at most this share of the largest one's volume are left out: few
views see them, and what those see is uncertain."""

CORNERS = cube_corners()
"""The corners of a cell, in the order of their values for `mesh_of_cells`."""


@outside_inference
@out_of_memory("extract", "give a lower resolution")
def extract(
    field: FieldLike | object,
    *,
    resolution: int | object = 192,
    project: int | object = 2,
    colors: bool | object = True,
    largest: bool | object = False,
    cavities: bool | object = True,
    smallest: float | object = 0.0,
    grid: BoundGrid | bool | object = True,
) -> Mesh:
    """Extract the surface of a field as a closed mesh with normals.

    Everything outside the field's bounds counts as empty: a surface that leaves the bounds is closed there by a cap. A
    field with a `lipschitz` bound is evaluated near the surface only, at 10 to 20 points per vertex; that bound must
    hold, or pieces vanish; where it proves that the surface is tiny in the bounds, the cells are shares of a box around
    it. Other fields are evaluated where a `BoundGrid` does not exclude the surface.

    Args:
        field: a `Field`, or anything that `as_field` accepts; the work is done on the device of its bounds.
        resolution: number of cells along the longest side of the bounds or of that box, up to `MAX_RESOLUTION`.
        project: number of Newton steps that pull each vertex onto the surface, each at most half a cell.
        colors: give the vertices the field's colours, seen along the normals.
        largest: keep only the connected piece with the largest area; the wall of a cavity is a piece of its own.
        cavities: keep the walls of closed cavities, which are invisible from outside.
        smallest: leave out pieces that enclose at most this share of the volume of the largest, from 0 to less than 1;
            fields that were fitted to photographs may have debris where few of them look, and accidental cavities.
        grid: an existing `BoundGrid` of the field, which is refreshed if the weights have changed. True builds one with
            64 boxes along the longest side if the field has no Lipschitz bound and the resolution is higher; False
            evaluates such a field at all corners, about resolution cubed points.

    Raises:
        ValueError: if the resolution makes no sense, the field has no surface inside its bounds or one that is smaller
            than a cell, is inside out there, or a value is not finite.
        torch.OutOfMemoryError: if a device has too little memory for it.
    """
    resolution = check_resolution(resolution, "extract: resolution")
    check_switches("extract", colors=colors, largest=largest, cavities=cavities)
    steps, share = whole("extract: project", project, least=0), _share("extract: smallest", smallest)
    field = as_field(field)
    solid = Solid(field)
    box, bound_grid = _where(field, solid, grid, resolution)
    lattice = Lattice.around(field.bounds if box is None else box, resolution)
    vertices, faces = triangulate(solid, lattice, bound_grid)
    solid.check()
    if len(faces) == 0:
        raise ValueError(f"extract: the surface is smaller than a cell at resolution {resolution}; give a higher one")
    vertices, slope = _project_by_newton(solid, lattice, vertices, steps)
    if bool(((vertices == solid.low) | (vertices == solid.high)).any()) and is_inside_out(field):  # it has caps
        raise ValueError(f"extract: {INSIDE_OUT}")
    faces = _without_slivers(vertices, faces, 1e-6 * float(lattice.step.min()) ** 2)
    faces = _kept_pieces(vertices, faces, share, cavities=bool(cavities))
    faces = _largest_piece(vertices, faces) if largest else faces
    used, faces = torch.unique(faces, return_inverse=True)
    vertices, slope = vertices[used], slope[used]
    flat = slope.norm(dim=-1, keepdim=True) < 1e-12
    normals = torch.where(
        flat, vertex_normals(vertices, faces), torch.nn.functional.normalize(slope, dim=-1, eps=1e-12)
    )
    return Mesh(vertices, faces, normals, _colors(field, vertices, normals) if colors else None)


def mesh_of_cells(
    cell: Int[Tensor, "n 3"], corner: Float[Tensor, "n 8"], low: Float[Tensor, "3"], side: float | Float[Tensor, "3"]
) -> Mesh:
    """Return the surface {value = 0} of values at the corners of cells, by marching cubes; negative values are inside.

    Args:
        cell: the lowest corner of each cell, counted in cells; no cell twice.
        corner: values in the order of `CORNERS`.
        low: the place of the corner (0, 0, 0) [any unit].
        side: of a cell, along all axes or along each [the same unit].
    """
    inside = (corner < 0).sum(1)
    crossed = (inside > 0) & (inside < 8)
    vertices, faces = marching_cubes(cell[crossed], corner[crossed].float())
    return Mesh(low + side * vertices, faces)


def mesh_of_lattice(
    value: Float[Tensor, "r s t"], low: Float[Tensor, "3"], side: float | Float[Tensor, "3"], *, smallest: float = 0.0
) -> Mesh:
    """Return the outer surface {value = 0} of values on a lattice, closed at its border; the walls of cavities are not.

    Args:
        value: at the corners of cells; negative values are inside.
        low: the place of the first corner.
        side: of a cell, along all axes or along each [the unit of `low`].
        smallest: pieces that enclose at most this share of the largest one's volume are left out.
    """
    value = torch.nn.functional.pad(value[None, None], (1,) * 6, value=float(value.abs().max()))[0, 0]
    solid = (value < 0)[None, None].float()
    some, every = (torch.nn.functional.max_pool3d(sign * solid, 2, stride=1)[0, 0] for sign in (1, -1))
    cell = torch.nonzero(some != -every)
    corner = torch.stack([value[tuple((cell + cell.new_tensor(c)).unbind(1))] for c in CORNERS], 1)
    mesh = mesh_of_cells(cell, corner, low - side, side)
    used, faces = torch.unique(_kept_pieces(mesh.vertices, mesh.faces, smallest), return_inverse=True)
    return Mesh(mesh.vertices[used], faces)


def _share(name: str, value: object) -> float:
    share = plain(value)
    if share is None or not 0 <= share < 1:
        raise ValueError(f"{name} must be a share from 0 to less than 1, got {value!r}")
    return share


def _where(
    field: Field, solid: Solid, grid: BoundGrid | bool | object, resolution: int
) -> tuple[Tensor | None, BoundGrid | None]:
    """Return the box around a surface that is tiny in its bounds, and the grid that tells where it can be, if any."""
    if isinstance(grid, bool):
        pays = grid and solid.lipschitz is None and resolution > 64
        box = surface_box(field, solid.lipschitz, solid.values)
        return box, BoundGrid(field, cells=64, finest=128 if resolution > 128 else 64) if pays else None
    if not isinstance(grid, BoundGrid):
        refuse_class("extract: grid", grid)
        raise ValueError(f"extract: grid must be True, False or a BoundGrid of the field, got {grid!r}")
    grid.follow(field)
    return grid.box, grid


def check_resolution(resolution: int | object, name: str) -> int:
    """Return the resolution of a mesh, which is called `name` in the message.

    Raises:
        ValueError: if it does not lie between 1 and `MAX_RESOLUTION`.
    """
    resolution = whole(name, resolution, least=None)
    if resolution < 1:
        raise ValueError(f"{name} must be at least 1, got {resolution}")
    if resolution > MAX_RESOLUTION:
        raise ValueError(
            f"{name} must be at most {MAX_RESOLUTION}, where a mesh has tens of millions of triangles, got {resolution}"
        )
    return resolution


def _project_by_newton(
    solid: Solid, lattice: Lattice, x: Float[Tensor, "n 3"], steps: int
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """Return the points after Newton steps onto {value = 0}, and the outward directions there.

    A step is at most half a cell long. A step that would move a point away from the surface is rejected, and the next
    one is shorter. Points of a cap move onto the side of the box.
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


def _with_caps(
    solid: Solid, lattice: Lattice, x: Float[Tensor, "n 3"]
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """Move the points of a cap onto the box; also return the normal of the box there, 0 at all other points.

    A vertex between the two outermost layers of corners belongs to a cap if the field is negative at the nearest point
    of the box.
    """
    side = (x - (solid.low + solid.high) / 2).sign()
    shell = (side * x - torch.where(side > 0, solid.high, -solid.low)) / lattice.step > -0.499
    on_box = torch.where(shell, torch.where(side > 0, solid.high, solid.low), x)
    cap = shell.any(1)
    cap[cap.clone()] = solid.contains(on_box[cap])
    return torch.where(cap[:, None], on_box, x.clamp(solid.low, solid.high)), side * (shell & cap[:, None])


def _without_slivers(vertices: Float[Tensor, "n 3"], faces: Int[Tensor, "m 3"], area: float) -> Int[Tensor, "k 3"]:
    """Return faces over the same vertices, with the shortest edge of each face smaller than `area` collapsed.

    Dropping such faces would tear the mesh open. So may a collapse where the surface nearly touches itself: a sweep
    that opens the mesh is discarded.
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


def _largest_piece(vertices: Float[Tensor, "n 3"], faces: Int[Tensor, "m 3"]) -> Int[Tensor, "k 3"]:
    """Return the faces of the connected piece of largest area; of equal ones, that with the lowest vertex index."""
    a, b, c = vertices[faces].double().unbind(1)
    piece = _pieces(vertices, faces)
    area = a.new_zeros(len(vertices)).index_add_(0, piece, torch.linalg.cross(b - a, c - a).norm(dim=-1))
    return faces[piece == area.argmax()]


def _kept_pieces(
    vertices: Float[Tensor, "n 3"], faces: Int[Tensor, "m 3"], smallest: float, *, cavities: bool = False
) -> Int[Tensor, "k 3"]:
    """Return the faces of the pieces that enclose more than a share of the largest volume, and those of cavities if
    they are wanted: their walls are wound the other way, so that they enclose a negative volume."""
    if cavities and not smallest:
        return faces
    a, b, c = (vertices - vertices.mean(0))[faces].double().unbind(1)
    piece = _pieces(vertices, faces)
    volume = a.new_zeros(len(vertices)).index_add_(0, piece, (a * torch.linalg.cross(b, c)).sum(-1))
    largest = float(volume.max().clamp_min(0)) if len(volume) else 0.0
    volume = volume.abs() if cavities else volume
    return faces[volume[piece] > smallest * largest]


def _pieces(vertices: Float[Tensor, "n 3"], faces: Int[Tensor, "m 3"]) -> Int[Tensor, " m"]:
    """Return, for each face, the lowest vertex index of its connected piece."""
    return _component_roots(len(vertices), torch.cat([faces[:, :2], faces[:, 1:]]))[faces[:, 0]]


def _component_roots(n: int, pairs: Int[Tensor, "k 2"]) -> Int[Tensor, " n"]:
    """Return, for each of n vertices, the lowest vertex index that a chain of pairs leads to.

    Each sweep hooks the roots of a pair onto the smaller one and halves the chains, so few sweeps are needed.
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
    """Return whether exactly two faces meet at every edge."""
    a, b = torch.cat([faces, faces.roll(-1, 1)]).reshape(2, -1).sort(0).values
    return bool((torch.unique(a * (int(faces.max()) + 1) + b, return_counts=True)[1] == 2).all())


def _colors(field: Field, x: Float[Tensor, "n 3"], normal: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    """Return sRGB colours in [0, 1], seen along the normals."""

    def color(index: Int[Tensor, " k"]) -> Float[Tensor, "k 3"]:
        p, n = (a[index].to(field.bounds.dtype) for a in (x, normal))
        return shade(SurfacePoints(field, p, n, -n, field.geometry(p)[1]))

    with torch.no_grad():
        parts = in_parts(color, torch.arange(len(x), device=x.device).split(CHUNK))
    return torch.cat(parts).float().clamp(0, 1)

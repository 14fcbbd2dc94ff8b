"""Triangle meshes: out of a field, out of a file, into a file."""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from warpdvr.bridge import CORNERS, marching_cubes, sparse_marching_cubes

CHUNK = 1 << 17
"""Number of points in one evaluation of a field."""


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh, wound counter-clockwise as seen from outside.

    Raises:
        ValueError: if a shape is wrong, or a face names a vertex that is not there.
    """

    vertices: Tensor
    """Shape (n, 3), float32 [scene unit, or the unit of the file it came from]."""
    faces: Tensor
    """Indices of vertices, shape (m, 3), int64."""
    normals: Tensor | None = None
    """Unit normals of the vertices, outward, shape (n, 3)."""
    colors: Tensor | None = None
    """sRGB colours of the vertices in [0, 1], shape (n, 3)."""

    def __post_init__(self) -> None:
        for name in ("vertices", "faces", "normals", "colors"):
            array = getattr(self, name)
            n = len(array) if name == "faces" and array.ndim else len(self.vertices)
            if array is not None and tuple(array.shape) != (n, 3):
                raise ValueError(f"mesh: {name} must have shape ({n}, 3), got {tuple(array.shape)}")
        if len(self.faces) and not 0 <= int(self.faces.min()) <= int(self.faces.max()) < len(self.vertices):
            low, high = int(self.faces.min()), int(self.faces.max())
            raise ValueError(f"mesh: a face names vertex {low if low < 0 else high} of {len(self.vertices)} vertices")

    def transformed(self, matrix: Tensor) -> "Mesh":
        """Return the mesh moved by a similarity (4, 4): a rotation, a scale, a translation, perhaps a mirror.

        Raises:
            ValueError: if the matrix is not a similarity, so that normals would not stay normals.
        """
        linear, shift = matrix.to(self.vertices)[:3, :3], matrix.to(self.vertices)[:3, 3]
        scale = float(matrix.detach()[:3, :3].double().det().abs()) ** (1 / 3)
        turn = linear / max(scale, 1e-30)
        if tuple(matrix.shape) != (4, 4) or not torch.allclose(turn @ turn.T, torch.eye(3).to(turn), atol=1e-4):
            raise ValueError(f"mesh: a similarity of shape (4, 4) is needed, got {matrix.tolist()}")
        normals = None if self.normals is None else torch.nn.functional.normalize(self.normals @ turn.T, dim=-1)
        faces = self.faces.flip(1) if turn.det() < 0 else self.faces
        return replace(self, vertices=self.vertices @ linear.T + shift, faces=faces, normals=normals)

    def save(self, path: str | Path) -> None:
        """Write the mesh as binary .ply (colours in 8 bits) or as .obj; a file of that name is replaced at once or not.

        Raises:
            ValueError: if the suffix is another one, or the folder does not exist.
        """
        path = Path(path)
        write = {".ply": _ply_bytes, ".obj": _obj_bytes}.get(path.suffix.lower())
        if write is None:
            raise ValueError(
                f"{path}: a mesh is written as .ply or .obj, not as {path.suffix or 'a file without suffix'}"
            )
        with replacing(path) as unfinished:
            unfinished.write_bytes(write(self))


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Return unit normals (n, 3): those of the faces around each vertex, weighted by area; (0, 0, 1) where none is."""
    a, b, c = vertices[faces].double().unbind(1)
    normal = torch.zeros_like(vertices, dtype=torch.float64)
    normal.index_add_(0, faces.reshape(-1), torch.linalg.cross(b - a, c - a).repeat_interleave(3, 0))
    length = normal.norm(dim=-1, keepdim=True)
    return torch.where(length > 0, normal / length, torch.eye(3).to(normal)[2]).to(vertices)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to write to, and move it there at the end; after an error nothing is left."""
    if not path.parent.is_dir():
        raise ValueError(f"{path}: there is no folder {path.parent}")
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def extract(field: Any, *, resolution: int = 192, project: int = 2, colors: bool = True) -> Mesh:
    """Extract the surface of a field as a closed mesh with normals.

    What lies outside of the field's bounds counts as outside of the surface: a surface that leaves them is closed there
    by a cap. With a `field.lipschitz`, only places near the surface are asked, 10 to 20 per vertex; that bound must
    hold, or pieces vanish. Without one, every corner of the grid is asked: about resolution cubed points.

    Args:
        field: the `Field`; its bounds say on which device the work is done.
        resolution: number of cells along the longest side of the bounds.
        project: number of Newton steps that pull each vertex onto the surface, each at most half a cell.
        colors: ask the field for colours, seen along the normals.

    Raises:
        ValueError: if the field has no surface inside its bounds, or has values that are not numbers.
    """
    if resolution < 1:
        raise ValueError(f"extract: resolution must be at least 1, got {resolution}")
    solid, grid = _Solid(field), _Grid.around(field.bounds, resolution)
    vertices, faces = _triangulate(solid, grid)
    solid.check()
    vertices, slope = _project(solid, grid, vertices, project)
    kept, faces = _without_slivers(vertices, faces, 1e-6 * float(grid.step.min()) ** 2)
    vertices, slope = vertices[kept], slope[kept]
    flat = slope.norm(dim=-1, keepdim=True) < 1e-12
    normals = torch.where(
        flat, vertex_normals(vertices, faces), torch.nn.functional.normalize(slope, dim=-1, eps=1e-12)
    )
    return Mesh(vertices, faces, normals, _colors(field, vertices, normals) if colors else None)


class _Solid:
    """The part of a field that lies inside of its bounds, as a function of points anywhere."""

    def __init__(self, field: Any):
        self.field, self.lipschitz = field, field.lipschitz
        self.low, self.high = field.bounds.detach().float()
        self.least, self.most = float("inf"), float("-inf")

    def inside(self, x: Tensor) -> Tensor:
        """Return the field's values (n,) at points that are moved into the bounds first."""
        value: Tensor = self.field.value(x.clamp(self.low, self.high)).float()
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


def _without_slivers(vertices: Tensor, faces: Tensor, area: float) -> tuple[Tensor, Tensor]:
    """Return the vertices to keep, and the faces over them: the shortest side of each face below `area` is closed.

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
    kept, faces = torch.unique(faces, return_inverse=True)
    return kept, faces.reshape(-1, 3)


def _joined(n: int, pairs: Tensor) -> Tensor:
    """Return for each of n vertices the smallest one that a chain of pairs leads to, shape (n,)."""
    label = torch.arange(n, device=pairs.device)
    for _ in range(n):
        low = label[pairs].amin(1)
        new = label.scatter_reduce(0, pairs.reshape(-1), low.repeat_interleave(2), "amin")
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
            parts.append(field.color(p, n, -n, field.geometry(p)[1]))
    return torch.cat(parts).float().clamp(0, 1)


def read_mesh(path: str | Path) -> Mesh:
    """Read a .ply (ascii or binary), .obj or .off file; polygons become fans of triangles.

    Normals and colours are read where every vertex has its own. Texture coordinates are left out.

    Raises:
        ValueError: if the file is missing, cut short, not of its kind, or holds a number that makes no sense.
    """
    path = Path(path)
    read = {".ply": _read_ply, ".obj": _read_obj, ".off": _read_off}.get(path.suffix.lower())
    if read is None:
        raise ValueError(
            f"{path}: a mesh is read from .ply, .obj or .off, not from {path.suffix or 'a file without suffix'}"
        )
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file")
    try:
        table, faces = read(path.read_bytes())
        array = {name: torch.from_numpy(np.array(value, np.float32).reshape(-1, 3)) for name, value in table.items()}
        if not all(bool(value.isfinite().all()) for value in array.values()):
            raise ValueError("a number is not finite")
        return Mesh(faces=torch.from_numpy(faces), **array)
    except (ValueError, IndexError, KeyError, StopIteration, OverflowError) as problem:
        raise ValueError(f"{path}: not a mesh that can be read: {problem}") from problem


Table = dict[str, Any]
"""The arrays of a mesh by the names of its members, each (n, 3); `vertices` at least."""


def _fans(polygons: Any) -> np.ndarray[Any, Any]:
    """Return the triangles (m, 3) of polygons, a list of lists or an array with one polygon per row."""
    if isinstance(polygons, np.ndarray):
        fans = [polygons[:, [0, i, i + 1]] for i in range(1, polygons.shape[1] - 1)]
        return np.stack(fans, 1).reshape(-1, 3).astype(np.int64)
    if any(len(p) < 3 for p in polygons):
        raise ValueError("a face has fewer than 3 vertices")
    triangles = [(p[0], p[i], p[i + 1]) for p in polygons for i in range(1, len(p) - 1)]
    return np.array(triangles, np.int64).reshape(-1, 3)


def _read_off(data: bytes) -> tuple[Table, np.ndarray[Any, Any]]:
    lines = [line.split(b"#")[0].split() for line in data.splitlines()]
    words = [line for line in lines if line]
    if not words or words[0][0] != b"OFF":
        raise ValueError("the first word is not OFF")
    rows = [words[0][1:], *words[1:]] if len(words[0]) > 1 else words[1:]
    n, m = (int(count) for count in rows[0][:2])
    if min(n, m) < 0 or len(rows) < 1 + n + m:
        raise ValueError(f"{n} vertices and {m} faces are announced, {len(rows) - 1} lines follow")
    polygons = [[int(i) for i in row[1 : 1 + int(row[0])]] for row in rows[1 + n : 1 + n + m]]
    if any(len(p) != int(row[0]) for p, row in zip(polygons, rows[1 + n :], strict=False)):
        raise ValueError("a face has fewer vertices than it announces")
    return {"vertices": [[float(a) for a in row[:3]] for row in rows[1 : 1 + n]]}, _fans(polygons)


def _read_obj(data: bytes) -> tuple[Table, np.ndarray[Any, Any]]:
    points: list[list[float]] = []
    normals: list[list[float]] = []
    corners: list[list[list[bytes]]] = []
    known: list[tuple[int, int]] = []  # how many of both there are at each face: negative indices count back from there
    for line in data.replace(b"\\\n", b" ").splitlines():
        word, *rest = line.split(b"#")[0].split() or [b""]
        if word == b"v":
            points.append([float(a) for a in rest])
        elif word == b"vn":
            normals.append([float(a) for a in rest[:3]])
        elif word == b"f":
            corners.append([corner.split(b"/") for corner in rest])
            known.append((len(points), len(normals)))
    if not points or any(len(p) < 3 for p in points):
        raise ValueError("there are no vertices, or one has fewer than 3 coordinates")
    polygons = [[_index(c[0], n) for c in face] for face, (n, _) in zip(corners, known, strict=True)]
    table: Table = {"vertices": [p[:3] for p in points]}
    if all(len(p) == 6 for p in points):  # x y z r g b, as MeshLab and others write it
        table["colors"] = [p[3:] for p in points]
    if normals and all(len(c) == 3 for face in corners for c in face):
        named = [[_index(c[2], n) for c in face] for face, (_, n) in zip(corners, known, strict=True)]
        table.update(_one_each(len(points), polygons, named, np.array(normals)))
    return table, _fans(polygons)


def _index(word: bytes, n: int) -> int:
    """Return an OBJ index, which starts at 1 or counts back from the end, as one that starts at 0."""
    i = int(word)
    if i == 0 or not -n <= i:
        raise ValueError(f"a face names number {i} of {n}")
    return i - 1 if i > 0 else n + i


def _one_each(n: int, polygons: list[list[int]], named: list[list[int]], normals: Any) -> Table:
    """Return the normals of the vertices, if each vertex has exactly one."""
    vertex, normal = (np.array([i for face in faces for i in face], int) for faces in (polygons, named))
    own = np.full(max(n, vertex.max(initial=0) + 1), -1)
    own[vertex] = normal
    if (own < 0).any() or not np.array_equal(own[vertex], normal):
        return {}
    return {"normals": normals[own[:n]]}


_NAMES = "char uchar short ushort int uint float double int8 uint8 int16 uint16 int32 uint32 float32 float64".split()
_KINDS = "i1 u1 i2 u2 i4 u4 f4 f8 i1 u1 i2 u2 i4 u4 f4 f8".split()
_PLY = dict(zip(_NAMES, _KINDS, strict=True))
_ORDER = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}


def _read_ply(data: bytes) -> tuple[Table, np.ndarray[Any, Any]]:
    header, end, body = data.partition(b"end_header")
    lines = [line.split() for line in header.decode("ascii", "replace").splitlines()]
    if not end or lines[:1] != [["ply"]]:
        raise ValueError("there is no PLY header")
    source: Any = body[body.index(b"\n") + 1 :]
    order = next(_ORDER[line[1]] for line in lines if line[:1] == ["format"])
    read, source = (_ply_rows, source) if order else (_ply_words, source.split())
    found: dict[str, Table] = {}
    for i in [i for i, line in enumerate(lines) if line[:1] == ["element"]]:
        after = lines[i + 1 :]
        last = next((k for k, line in enumerate(after) if line[:1] == ["element"]), len(after))
        properties = [line[1:] for line in after[:last] if line[:1] == ["property"]]
        found[lines[i][1]], source = read(source, int(lines[i][2]), properties, order)
    face = found.get("face", {})
    return _ply_table(found["vertex"]), _fans(face.get("vertex_indices", face.get("vertex_index", [])))


def _ply_table(column: Table) -> Table:
    """Return the columns that a mesh has members for; whole-numbered colours run from 0 to the largest number."""
    members = {"vertices": ("x", "y", "z"), "normals": ("nx", "ny", "nz"), "colors": ("red", "green", "blue")}
    table = {
        key: np.stack([column[k] for k in names], 1)
        for key, names in members.items()
        if key == "vertices" or all(k in column for k in names)
    }
    if "colors" in table and table["colors"].dtype.kind in "iu":
        table["colors"] = table["colors"] / np.iinfo(table["colors"].dtype).max
    return table


def _ply_words(words: list[bytes], n: int, properties: list[list[str]], _: str) -> tuple[Table, list[bytes]]:
    """Read the columns of one ascii element, and return the words that follow."""
    column: Table = {p[-1]: [] for p in properties}
    at = 0
    for _row in range(n):
        for p in properties:
            count = int(words[at]) if p[0] == "list" else 1
            at += p[0] == "list"
            row = words[at : at + count]
            at += count
            if len(row) < count:
                raise ValueError("the file ends too early")
            column[p[-1]].append([int(a) for a in row] if p[0] == "list" else float(row[0]))
    kinds = {p[-1]: _PLY[p[0]] for p in properties if p[0] != "list"}
    return {k: np.array(c, kinds[k]) if k in kinds else c for k, c in column.items()}, words[at:]


def _ply_rows(body: bytes, n: int, properties: list[list[str]], order: str) -> tuple[Table, bytes]:
    """Read the columns of one binary element, and return the bytes that follow."""
    if not n:
        return {p[-1]: [] for p in properties}, body
    row = np.dtype(_ply_row(body, properties, order))
    if len(body) < n * row.itemsize and n == 1:
        raise ValueError("the file ends too early")
    counts = [name for name in row.names or () if name.startswith("#")]
    if len(body) >= n * row.itemsize:
        rows = np.frombuffer(body, row, n)
        if all((rows[name] == rows[name][0]).all() for name in counts):
            return {p[-1]: rows[p[-1]] for p in properties}, body[n * row.itemsize :]
    column: Table = {p[-1]: [] for p in properties}
    source: Any = memoryview(body)
    for _ in range(n if counts else 1):  # lists of several lengths: row by row
        one, source = _ply_rows(source, 1, properties, order)
        for name, values in one.items():
            column[name].append(values[0])
    return column, bytes(source)


def _ply_row(body: bytes, properties: list[list[str]], order: str) -> list[Any]:
    """Return the layout of the first row, with the length `#name` of each list before the list."""
    layout: list[Any] = []
    for p in properties:
        if p[0] != "list":
            layout.append((p[1], order + _PLY[p[0]]))
            continue
        layout.append((f"#{p[3]}", order + _PLY[p[1]]))
        at = np.dtype(layout).itemsize
        count = int(np.frombuffer(body[:at], np.dtype(layout), 1)[0][f"#{p[3]}"])
        layout.append((p[3], order + _PLY[p[2]], (max(count, 0),)))
    return layout


def _ply_bytes(mesh: Mesh) -> bytes:
    columns: list[tuple[str, str, Any]] = []
    for names, kind, array in (
        (("x", "y", "z"), "float", mesh.vertices),
        (("nx", "ny", "nz"), "float", mesh.normals),
        (("red", "green", "blue"), "uchar", None if mesh.colors is None else (mesh.colors * 255 + 0.5).clamp(0, 255)),
    ):
        if array is not None:
            columns += [(name, kind, a) for name, a in zip(names, array.detach().cpu().numpy().T, strict=True)]
    rows = np.empty(len(mesh.vertices), [(name, "<" + _PLY[kind]) for name, kind, _ in columns])
    for name, _, a in columns:
        rows[name] = a
    faces = np.empty(len(mesh.faces), [("n", "u1"), ("index", "<i4", (3,))])
    faces["n"], faces["index"] = 3, mesh.faces.cpu().numpy()
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}"]
    header += [f"property {kind} {name}" for name, kind, _ in columns]
    header += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header", ""]
    return "\n".join(header).encode() + rows.tobytes() + faces.tobytes()


def _obj_bytes(mesh: Mesh) -> bytes:
    points = mesh.vertices if mesh.colors is None else torch.cat([mesh.vertices, mesh.colors], 1)
    lines = ["v " + " ".join(f"{a:.9g}" for a in row) for row in points.tolist()]
    if mesh.normals is not None:
        lines += ["vn " + " ".join(f"{a:.9g}" for a in row) for row in mesh.normals.tolist()]
    form = "{0}" if mesh.normals is None else "{0}//{0}"
    lines += ["f " + " ".join(form.format(i + 1) for i in row) for row in mesh.faces.tolist()]
    return "\n".join([*lines, ""]).encode()

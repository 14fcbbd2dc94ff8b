"""Parse the files of triangle meshes: .ply, .obj and .off; see `warpdvr.geometry.mesh`."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from warpdvr.geometry import plyfile
from warpdvr.geometry.precision import as_precise_as_needed
from warpdvr.runtime.parsing import error_named, parsing, read_bytes

Rows = np.ndarray | list[list[float]]
"""Rows of numbers."""

Table = dict[str, Rows]
"""Columns by name; of a mesh: `vertices`, perhaps `normals` and `colors`, each (n, 3)."""


def read(path: Path) -> dict[str, Tensor]:
    """Return `faces` (m, 3), int64, `vertices` and perhaps `normals` and `colors`, each (n, 3).

    Raises:
        ValueError: if the file is missing, cut short, not in the format of its suffix, or holds a number that is not
            finite.
    """
    parse = {".ply": _read_ply, ".obj": _read_obj, ".off": _read_off}.get(path.suffix.lower())
    if parse is None:
        raise ValueError(
            f"{path}: a mesh is read from .ply, .obj or .off, not from {path.suffix or 'a file without suffix'}"
        )
    if not path.exists():
        raise ValueError(f"{path}: there is no such file")
    expected = f"a mesh in the format {path.suffix.lower()[1:].upper()}"
    data = read_bytes(path, expected)
    with parsing(path, expected):
        table, faces = parse(data)
        return {name: _tensor(name, value) for name, value in table.items()} | {"faces": torch.from_numpy(faces)}


def _tensor(name: str, rows: Rows) -> Float[Tensor, "n 3"]:
    """Return rows of three numbers; vertices are as precise as they need to be."""
    with error_named(name):
        values = torch.from_numpy(np.array(rows, np.float64).reshape(-1, 3))
        tensor = as_precise_as_needed(values) if name == "vertices" else values.float()
        if not bool(tensor.isfinite().all()):
            raise ValueError("a number is not finite")
        return tensor


def _fans(counts: NDArray[np.int64], corners: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the triangles (m, 3) of polygons with `counts` corners; `corners` are the vertices of all."""
    if len(counts) and counts.min() < 3:
        raise ValueError("a face has fewer than 3 vertices")
    n = counts - 2
    first = np.repeat(np.cumsum(counts) - counts, n)
    second = first + 1 + np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n)
    return np.stack([corners[first], corners[second], corners[second + 1]], 1).reshape(-1, 3)


def _polygons(polygons: list[list[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the number of corners of each polygon, and the vertices of all."""
    return np.array([len(p) for p in polygons], np.int64), np.array([i for p in polygons for i in p], np.int64)


def _read_off(data: bytes) -> tuple[Table, NDArray[np.int64]]:
    lines = [line.split(b"#")[0].split() for line in data.splitlines()]
    words = [line for line in lines if line]
    if not words or words[0][0] != b"OFF":
        raise ValueError("the first word is not OFF")
    rows = [words[0][1:], *words[1:]] if len(words[0]) > 1 else words[1:]
    n, m = (int(count) for count in rows[0][:2])
    if min(n, m) < 0 or len(rows) < 1 + n + m:
        raise ValueError(f"{n} vertices and {m} faces are announced, {len(rows) - 1} lines follow")
    with error_named("faces"):
        polygons = [[int(i) for i in row[1 : 1 + int(row[0])]] for row in rows[1 + n : 1 + n + m]]
        if any(len(p) != int(row[0]) for p, row in zip(polygons, rows[1 + n :], strict=False)):
            raise ValueError("a face has fewer vertices than it announces")
    with error_named("vertices"):
        points = [[float(a) for a in row[:3]] for row in rows[1 : 1 + n]]
    return {"vertices": points}, _fans(*_polygons(polygons))


def _read_obj(data: bytes) -> tuple[Table, NDArray[np.int64]]:
    points: list[list[float]] = []
    normals: list[list[float]] = []
    corners: list[list[list[bytes]]] = []
    counts: list[tuple[int, int]] = []  # of points and normals at each face: negative indices count back from there
    line = b""
    try:
        for line in data.replace(b"\\\r\n", b" ").replace(b"\\\n", b" ").splitlines():
            word, *arguments = line.split(b"#")[0].split() or [b""]
            if word == b"v":
                points.append([float(a) for a in arguments])
            elif word == b"vn":
                normals.append([float(a) for a in arguments[:3]])
            elif word == b"f":
                corners.append([corner.split(b"/") for corner in arguments])
                counts.append((len(points), len(normals)))
    except ValueError as error:
        raise ValueError(f"the line {line[:60].decode('ascii', 'replace')!r}: {error}") from error
    if not points or any(len(p) < 3 for p in points):
        raise ValueError("there are no vertices, or one has fewer than 3 coordinates")
    polygons = [[_index(c[0], n) for c in face] for face, (n, _) in zip(corners, counts, strict=True)]
    table: Table = {"vertices": [p[:3] for p in points]}
    if all(len(p) == 6 for p in points):  # x y z r g b, as MeshLab and others write it
        table["colors"] = [p[3:] for p in points]
    if normals and all(len(c) == 3 for face in corners for c in face):
        if any(len(n) < 3 for n in normals):
            raise ValueError("a normal has fewer than 3 coordinates")
        normal_index = [[_index(c[2], n) for c in face] for face, (_, n) in zip(corners, counts, strict=True)]
        table.update(_normals_per_vertex(len(points), polygons, normal_index, np.array(normals)))
    return table, _fans(*_polygons(polygons))


def _index(word: bytes, n: int) -> int:
    """Return an OBJ index, which starts at 1 or counts back from the end, as one that starts at 0."""
    try:
        i = int(word)
    except ValueError:
        raise ValueError(f"a face names {word[:40].decode('ascii', 'replace')!r}, which is no number") from None
    if i == 0 or not -n <= i:
        raise ValueError(f"a face names number {i} of {n}")
    return i - 1 if i > 0 else n + i


def _normals_per_vertex(
    n: int, polygons: list[list[int]], normal_index: list[list[int]], normals: NDArray[np.float64]
) -> Table:
    """Return the normals of the vertices, if each vertex has exactly one."""
    vertex, normal = (np.array([i for face in faces for i in face], int) for faces in (polygons, normal_index))
    if vertex.max(initial=0) >= n or normal.max(initial=0) >= len(normals):
        raise ValueError(f"a face names one of {n} vertices or {len(normals)} normals that is not there")
    normal_of = np.full(n, -1)
    normal_of[vertex] = normal
    if (normal_of < 0).any() or not np.array_equal(normal_of[vertex], normal):
        return {}
    return {"normals": normals[normal_of]}


def _read_ply(data: bytes) -> tuple[Table, NDArray[np.int64]]:
    elements = plyfile.parse(data)
    if "vertex" not in elements:
        raise ValueError(f"it has no vertices, but {', '.join(elements)[:80] or 'nothing'}")
    face = elements.get("face", {})
    polygons = face.get("vertex_indices", face.get("vertex_index"))
    if "tristrips" in elements or (face and not isinstance(polygons, plyfile.Lists)):
        raise ValueError("its faces are not lists vertex_indices or vertex_index; save it as plain triangles")
    if not isinstance(polygons, plyfile.Lists):
        return _ply_table(elements["vertex"]), np.empty((0, 3), np.int64)
    return _ply_table(elements["vertex"]), _fans(polygons.counts, polygons.values.astype(np.int64))


def _ply_table(column: plyfile.Columns) -> Table:
    """Return the columns that a mesh has members for; integer colours run from 0 to the largest integer."""
    members = {"vertices": ("x", "y", "z"), "normals": ("nx", "ny", "nz"), "colors": ("red", "green", "blue")}
    table: dict[str, np.ndarray] = {}
    for key, names in members.items():
        columns = [c for name in names if isinstance(c := column.get(name), np.ndarray)]
        if len(columns) == 3:
            table[key] = np.stack(columns, 1)
        elif key == "vertices":
            raise ValueError("its vertices have no x, y and z")
    if "colors" in table and table["colors"].dtype.kind in "iu":
        table["colors"] = table["colors"] / np.iinfo(table["colors"].dtype).max
    return {**table}

"""Parse the files of triangle meshes: .ply, .obj and .off; see `warpdvr.geometry.mesh`."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from warpdvr.geometry.precision import as_precise_as_needed

Column = np.ndarray | list[np.ndarray] | list[list[int]] | list[list[float]]
"""A row per element: an array, or lists of different lengths."""

Table = dict[str, Column]
"""Columns by name; of a mesh: `vertices`, perhaps `normals` and `colors`, each (n, 3)."""


def read(path: Path) -> dict[str, Tensor]:
    """Return `faces` (m, 3), int64, `vertices` and perhaps `normals` and `colors`, each (n, 3).

    They are float32, except for vertices far from the origin (`precision.FAR`), which keep all digits of the file.

    Raises:
        ValueError: if the file is missing, cut short, not in the format of its suffix, or holds a number that is not
            finite.
    """
    parse = {".ply": _read_ply, ".obj": _read_obj, ".off": _read_off}.get(path.suffix.lower())
    if parse is None:
        raise ValueError(
            f"{path}: a mesh is read from .ply, .obj or .off, not from {path.suffix or 'a file without suffix'}"
        )
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file")
    try:
        table, faces = parse(path.read_bytes())
        arrays = {name: torch.from_numpy(np.array(value, np.float64).reshape(-1, 3)) for name, value in table.items()}
        arrays = {k: as_precise_as_needed(a) if k == "vertices" else a.float() for k, a in arrays.items()}
        if not all(bool(value.isfinite().all()) for value in arrays.values()):
            raise ValueError("a number is not finite")
        return {**arrays, "faces": torch.from_numpy(faces)}
    except (ValueError, IndexError, KeyError, StopIteration, OverflowError) as problem:
        raise ValueError(f"{path}: not a mesh that can be read: {problem}") from problem


def _fans(polygons: Column) -> NDArray[np.int64]:
    """Return the triangles (m, 3) of polygons, one per row."""
    if isinstance(polygons, np.ndarray):
        fans = [polygons[:, [0, i, i + 1]] for i in range(1, polygons.shape[1] - 1)]
        return np.stack(fans, 1).reshape(-1, 3).astype(np.int64)
    if any(len(p) < 3 for p in polygons):
        raise ValueError("a face has fewer than 3 vertices")
    triangles = [(p[0], p[i], p[i + 1]) for p in polygons for i in range(1, len(p) - 1)]
    return np.array(triangles, np.int64).reshape(-1, 3)


def _read_off(data: bytes) -> tuple[Table, NDArray[np.int64]]:
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


def _read_obj(data: bytes) -> tuple[Table, NDArray[np.int64]]:
    points: list[list[float]] = []
    normals: list[list[float]] = []
    corners: list[list[list[bytes]]] = []
    counts: list[tuple[int, int]] = []  # of points and normals at each face: negative indices count back from there
    for line in data.replace(b"\\\n", b" ").splitlines():
        word, *arguments = line.split(b"#")[0].split() or [b""]
        if word == b"v":
            points.append([float(a) for a in arguments])
        elif word == b"vn":
            normals.append([float(a) for a in arguments[:3]])
        elif word == b"f":
            corners.append([corner.split(b"/") for corner in arguments])
            counts.append((len(points), len(normals)))
    if not points or any(len(p) < 3 for p in points):
        raise ValueError("there are no vertices, or one has fewer than 3 coordinates")
    polygons = [[_index(c[0], n) for c in face] for face, (n, _) in zip(corners, counts, strict=True)]
    table: Table = {"vertices": [p[:3] for p in points]}
    if all(len(p) == 6 for p in points):  # x y z r g b, as MeshLab and others write it
        table["colors"] = [p[3:] for p in points]
    if normals and all(len(c) == 3 for face in corners for c in face):
        normal_index = [[_index(c[2], n) for c in face] for face, (_, n) in zip(corners, counts, strict=True)]
        table.update(_normals_per_vertex(len(points), polygons, normal_index, np.array(normals)))
    return table, _fans(polygons)


def _index(word: bytes, n: int) -> int:
    """Return an OBJ index, which starts at 1 or counts back from the end, as one that starts at 0."""
    i = int(word)
    if i == 0 or not -n <= i:
        raise ValueError(f"a face names number {i} of {n}")
    return i - 1 if i > 0 else n + i


def _normals_per_vertex(
    n: int, polygons: list[list[int]], normal_index: list[list[int]], normals: NDArray[np.float64]
) -> Table:
    """Return the normals of the vertices, if each vertex has exactly one."""
    vertex, normal = (np.array([i for face in faces for i in face], int) for faces in (polygons, normal_index))
    normal_of = np.full(max(n, vertex.max(initial=0) + 1), -1)
    normal_of[vertex] = normal
    if (normal_of < 0).any() or not np.array_equal(normal_of[vertex], normal):
        return {}
    return {"normals": normals[normal_of[:n]]}


_NAMES = "char uchar short ushort int uint float double int8 uint8 int16 uint16 int32 uint32 float32 float64".split()
_KINDS = "i1 u1 i2 u2 i4 u4 f4 f8 i1 u1 i2 u2 i4 u4 f4 f8".split()
_PLY = dict(zip(_NAMES, _KINDS, strict=True))
_ORDER = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}


def _read_ply(data: bytes) -> tuple[Table, NDArray[np.int64]]:
    header, end, body = data.partition(b"end_header")
    lines = [line.split() for line in header.decode("ascii", "replace").splitlines()]
    if not end or lines[:1] != [["ply"]]:
        raise ValueError("there is no PLY header")
    rows: bytes | memoryview = body[body.index(b"\n") + 1 :]
    order = next(_ORDER[line[1]] for line in lines if line[:1] == ["format"])
    words = [] if order else bytes(rows).split()
    elements: dict[str, Table] = {}
    for i in [i for i, line in enumerate(lines) if line[:1] == ["element"]]:
        following = lines[i + 1 :]
        last = next((k for k, line in enumerate(following) if line[:1] == ["element"]), len(following))
        properties = [line[1:] for line in following[:last] if line[:1] == ["property"]]
        name, n = lines[i][1], int(lines[i][2])
        if order:
            elements[name], rows = _ply_rows(rows, n, properties, order)
        else:
            elements[name], words = _ply_words(words, n, properties)
    face = elements.get("face", {})
    return _ply_table(elements["vertex"]), _fans(face.get("vertex_indices", face.get("vertex_index", [])))


def _ply_table(column: Table) -> Table:
    """Return the columns that a mesh has members for; integer colours run from 0 to the largest integer."""
    members = {"vertices": ("x", "y", "z"), "normals": ("nx", "ny", "nz"), "colors": ("red", "green", "blue")}
    table = {
        key: np.stack([np.asarray(column[k]) for k in names], 1)
        for key, names in members.items()
        if key == "vertices" or all(k in column for k in names)
    }
    if "colors" in table and table["colors"].dtype.kind in "iu":
        table["colors"] = table["colors"] / np.iinfo(table["colors"].dtype).max
    return {**table}


def _ply_words(words: list[bytes], n: int, properties: list[list[str]]) -> tuple[Table, list[bytes]]:
    """Read the columns of one ascii element; also return the words that follow."""
    numbers = {p[-1]: list[float]() for p in properties if p[0] != "list"}
    lists = {p[-1]: list[list[int]]() for p in properties if p[0] == "list"}
    at = 0
    for _ in range(n):
        for p in properties:
            count = int(words[at]) if p[0] == "list" else 1
            at += p[0] == "list"
            row = words[at : at + count]
            at += count
            if len(row) < count:
                raise ValueError("the file ends too early")
            if p[0] == "list":
                lists[p[-1]].append([int(a) for a in row])
            else:
                numbers[p[-1]].append(float(row[0]))
    kinds = {p[-1]: _PLY[p[0]] for p in properties if p[0] != "list"}
    return {**{k: np.array(c, kinds[k]) for k, c in numbers.items()}, **lists}, words[at:]


def _ply_rows(
    body: bytes | memoryview, n: int, properties: list[list[str]], order: str
) -> tuple[Table, bytes | memoryview]:
    """Read the columns of one binary element; also return the bytes that follow."""
    if not n:
        return {p[-1]: list[list[int]]() for p in properties}, body
    row = np.dtype(_ply_row(body, properties, order))
    counts = [name for name in row.names or () if name.startswith("#")]
    if len(body) < n * row.itemsize and (n == 1 or not counts):
        raise ValueError("the file ends too early")
    if len(body) >= n * row.itemsize:
        rows = np.frombuffer(body, row, n)
        if all((rows[name] == rows[name][0]).all() for name in counts):
            return {p[-1]: rows[p[-1]] for p in properties}, body[n * row.itemsize :]
    column = {p[-1]: list[np.ndarray]() for p in properties}
    following: bytes | memoryview = memoryview(body)
    for _ in range(n):  # lists of different lengths: row by row
        first, following = _ply_rows(following, 1, properties, order)
        for name, values in first.items():
            column[name].append(np.asarray(values[0]))
    return {**column}, following


def _ply_row(
    body: bytes | memoryview, properties: list[list[str]], order: str
) -> list[tuple[str, str] | tuple[str, str, tuple[int]]]:
    """Return the layout of the first row, with the length `#name` of each list before the list."""
    layout: list[tuple[str, str] | tuple[str, str, tuple[int]]] = []
    for p in properties:
        if p[0] != "list":
            layout.append((p[1], order + _PLY[p[0]]))
            continue
        layout.append((f"#{p[3]}", order + _PLY[p[1]]))
        at = np.dtype(layout).itemsize
        count = int(np.frombuffer(body[:at], np.dtype(layout), 1)[0][f"#{p[3]}"])
        layout.append((p[3], order + _PLY[p[2]], (max(count, 0),)))
    return layout

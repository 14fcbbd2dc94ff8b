"""Write the files of triangle meshes: .ply, .obj, .off and .glb; see `warpdvr.geometry.mesh`."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from warpdvr.geometry.glb import glb_bytes
from warpdvr.runtime.files import check_file, replacing


def check_writable(path: Path) -> None:
    """Check that a mesh can be written to a path, before the work that makes it.

    Raises:
        ValueError: if the suffix is not .ply, .obj, .off or .glb, or there is no folder for it.
    """
    suffix = path.suffix.lower()
    if suffix not in _ENCODERS:
        found = path.suffix or "a file without suffix"
        raise ValueError(
            f"{path}: a mesh is written as .ply or .obj, not as {found}; for other programs also as .off or .glb"
        )
    check_file(path)


def write(
    path: Path,
    vertices: Float[Tensor, "n 3"],
    faces: Int[Tensor, "m 3"],
    normals: Float[Tensor, "n 3"] | None,
    colors: Float[Tensor, "n 3"] | None,
) -> None:
    """Write a mesh in the format of the suffix; an existing file is replaced atomically.

    The digits of float64 vertices are kept: a .ply has `double` coordinates, an .obj and an .off as many digits as it
    takes, and a .glb has float32 coordinates around the origin and moves them by the translation of its node.

    Raises:
        ValueError: if the suffix is not one of these, or the folder does not exist.
    """
    check_writable(path)
    content = _ENCODERS[path.suffix.lower()](vertices.detach(), faces, normals, colors)
    with replacing(path) as unfinished:
        unfinished.write_bytes(content)


def _ply_bytes(
    vertices: Float[Tensor, "n 3"],
    faces: Int[Tensor, "m 3"],
    normals: Float[Tensor, "n 3"] | None,
    colors: Float[Tensor, "n 3"] | None,
) -> bytes:
    columns: list[tuple[str, str, np.ndarray]] = []
    for names, kind, array in (
        (("x", "y", "z"), "double" if vertices.dtype == torch.float64 else "float", vertices),
        (("nx", "ny", "nz"), "float", normals),
        (("red", "green", "blue"), "uchar", None if colors is None else (colors * 255 + 0.5).clamp(0, 255)),
    ):
        if array is not None:
            columns += [(name, kind, a) for name, a in zip(names, array.detach().cpu().numpy().T, strict=True)]
    types = {"double": "<f8", "float": "<f4", "uchar": "u1"}
    rows = np.empty(len(vertices), [(name, types[kind]) for name, kind, _ in columns])
    for name, _, a in columns:
        rows[name] = a
    triangles = np.empty(len(faces), [("n", "u1"), ("index", "<i4", (3,))])
    triangles["n"], triangles["index"] = 3, faces.cpu().numpy()
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}"]
    header += [f"property {kind} {name}" for name, kind, _ in columns]
    header += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header", ""]
    return "\n".join(header).encode() + rows.tobytes() + triangles.tobytes()


def _obj_bytes(
    vertices: Float[Tensor, "n 3"],
    faces: Int[Tensor, "m 3"],
    normals: Float[Tensor, "n 3"] | None,
    colors: Float[Tensor, "n 3"] | None,
) -> bytes:
    lines = [f"v {row}" for row in _rows(vertices)]
    if colors is not None:
        lines = [f"{line} {row}" for line, row in zip(lines, _rows(colors), strict=True)]
    if normals is not None:
        lines += [f"vn {row}" for row in _rows(normals)]
    form = "{0}" if normals is None else "{0}//{0}"
    lines += ["f " + " ".join(form.format(i + 1) for i in row) for row in faces.tolist()]
    return "\n".join([*lines, ""]).encode()


def _off_bytes(
    vertices: Float[Tensor, "n 3"],
    faces: Int[Tensor, "m 3"],
    normals: Float[Tensor, "n 3"] | None,
    colors: Float[Tensor, "n 3"] | None,
) -> bytes:
    """Return an OFF file, which has no place for normals, and whose colours few programs read: neither is written."""
    lines = ["OFF", f"{len(vertices)} {len(faces)} 0", *_rows(vertices)]
    return "\n".join([*lines, *(f"3 {a} {b} {c}" for a, b, c in faces.tolist()), ""]).encode()


def _rows(array: Float[Tensor, "n 3"]) -> list[str]:
    """Return the rows as text that gives the same numbers when it is read: 9 digits for float32, up to 17 else."""
    number = repr if array.dtype == torch.float64 else "{:.9g}".format
    return [" ".join(map(number, row)) for row in array.detach().tolist()]


_ENCODERS = {".ply": _ply_bytes, ".obj": _obj_bytes, ".off": _off_bytes, ".glb": glb_bytes}

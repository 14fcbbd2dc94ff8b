"""Triangle meshes: vertices, faces, normals and colours; read from files and written to them."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from warpdvr.geometry import meshfile, meshfile_write
from warpdvr.geometry.precision import as_precise_as_needed
from warpdvr.runtime.arguments import check_device


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh, wound counter-clockwise as seen from outside.

    Raises:
        ValueError: if a shape is wrong, or a face names a vertex that does not exist.
    """

    vertices: Float[Tensor, "n 3"]
    """Positions [scene unit, or the unit of the file it came from]: float32, or float64 where that has too few digits,
    far from the origin (`precision.FAR`)."""
    faces: Int[Tensor, "m 3"]
    """Indices of vertices, int64."""
    normals: Float[Tensor, "_ 3"] | None = None
    """Unit normals, outward, one per vertex."""
    colors: Float[Tensor, "_ 3"] | None = None
    """sRGB colours in [0, 1], one per vertex."""

    def __post_init__(self) -> None:
        for name in ("vertices", "faces", "normals", "colors"):
            array = getattr(self, name)
            n = len(array) if name == "faces" and array.ndim else len(self.vertices)
            if array is not None and tuple(array.shape) != (n, 3):
                raise ValueError(f"mesh: {name} must have shape ({n}, 3), got {tuple(array.shape)}")
            check_device("mesh", self.vertices.device, "vertices", **{name: array})
        if len(self.faces) and not 0 <= int(self.faces.min()) <= int(self.faces.max()) < len(self.vertices):
            low, high = int(self.faces.min()), int(self.faces.max())
            raise ValueError(f"mesh: a face names vertex {low if low < 0 else high} of {len(self.vertices)} vertices")

    def to(self, device: torch.device | str) -> "Mesh":
        """Return the mesh on a device."""
        normals, colors = (None if a is None else a.to(device) for a in (self.normals, self.colors))
        return Mesh(self.vertices.to(device), self.faces.to(device), normals, colors)

    def transformed(self, matrix: Tensor) -> "Mesh":
        """Return the mesh moved by a similarity (4, 4): a rotation, a scale, a translation and perhaps a reflection.

        It is computed in float64. Float32 vertices stay float32, except where they come to lie far from the origin.

        Raises:
            ValueError: if the matrix is not a similarity, and so would not map normals to normals.
        """
        matrix = matrix.to(self.vertices.device, torch.float64)
        linear, shift = matrix[:3, :3], matrix[:3, 3]
        rotation = linear / max(float(linear.detach().det().abs()) ** (1 / 3), 1e-30)
        if tuple(matrix.shape) != (4, 4) or not torch.allclose(
            rotation @ rotation.T, torch.eye(3).to(rotation), atol=1e-4
        ):
            raise ValueError(f"mesh: a similarity of shape (4, 4) is needed, got {matrix.tolist()}")
        moved = self.vertices.double() @ linear.T + shift
        vertices = moved if self.vertices.dtype == torch.float64 else as_precise_as_needed(moved)
        normals = self.normals
        if normals is not None:
            normals = torch.nn.functional.normalize(normals.double() @ rotation.T, dim=-1).to(normals)
        return replace(
            self, vertices=vertices, faces=self.faces.flip(1) if rotation.det() < 0 else self.faces, normals=normals
        )

    def save(self, path: str | Path) -> None:
        """Write the mesh as .ply (binary, colours in 8 bits), .obj, .off (no normals, no colours) or .glb.

        An existing file is replaced atomically. The digits of float64 vertices are kept in each of these formats.

        Raises:
            ValueError: if the suffix is not one of these, the folder does not exist, there are no faces, or a number
                is not finite.
        """
        check_writable(Path(path))
        self.check_exportable(Path(path))
        meshfile_write.write(Path(path), self.vertices, self.faces, self.normals, self.colors)

    def check_exportable(self, path: Path) -> None:
        """Check that there is something to write, before the file `path` is touched.

        Raises:
            ValueError: if there are no faces, or a number is not finite.
        """
        if not len(self.faces):
            raise ValueError(f"{path}: the mesh to write has no faces")
        for name in ("vertices", "normals", "colors"):
            array = getattr(self, name)
            if array is not None and (n := int((~array.detach().isfinite()).any(1).sum())):
                raise ValueError(
                    f"{path}: the mesh is not written, since {n} of its {len(array)} {name} are not finite numbers"
                )


check_writable = meshfile_write.check_writable


def read_mesh(path: str | Path) -> Mesh:
    """Read a .ply (ascii or binary), .obj or .off file; polygons become fans of triangles.

    Normals and colours are read if every vertex has exactly one. Texture coordinates are ignored.

    Raises:
        ValueError: if the file is missing, cut short, not in the format of its suffix, or holds an invalid number.
    """
    arrays = meshfile.read(Path(path))
    try:
        return Mesh(**arrays)
    except ValueError as problem:
        raise ValueError(f"{path}: not a mesh that can be read: {problem}") from problem


def bounding_ball(vertices: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, "3"], float]:
    """Return the centre of the bounding box of the vertices, and the distance of the farthest vertex from it.

    Raises:
        ValueError: if that distance is 0 or not finite.
    """
    centre = (vertices.amin(0) + vertices.amax(0)) / 2
    radius = float((vertices - centre).norm(dim=1).max())
    if not 0 < radius < math.inf:
        raise ValueError("expected a mesh with a size, but its vertices coincide or are not finite")
    return centre, radius


def vertex_normals(vertices: Float[Tensor, "n 3"], faces: Int[Tensor, "m 3"]) -> Float[Tensor, "n 3"]:
    """Return unit normals: the area-weighted mean over the faces around each vertex, (0, 0, 1) where there is none."""
    a, b, c = vertices[faces].double().unbind(1)
    normal = torch.zeros_like(vertices, dtype=torch.float64)
    normal.index_add_(0, faces.reshape(-1), torch.linalg.cross(b - a, c - a).repeat_interleave(3, 0))
    length = normal.norm(dim=-1, keepdim=True)
    return torch.where(length > 0, normal / length, torch.eye(3).to(normal)[2]).to(vertices)

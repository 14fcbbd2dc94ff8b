"""Triangle meshes: vertices, faces, normals and colours; read from files and written to them."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from warpdvr.geometry import meshfile


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh, wound counter-clockwise as seen from outside.

    Raises:
        ValueError: if a shape is wrong, or a face names a vertex that does not exist.
    """

    vertices: Float[Tensor, "n 3"]
    """Positions, float32 [scene unit, or the unit of the file it came from]."""
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
        if len(self.faces) and not 0 <= int(self.faces.min()) <= int(self.faces.max()) < len(self.vertices):
            low, high = int(self.faces.min()), int(self.faces.max())
            raise ValueError(f"mesh: a face names vertex {low if low < 0 else high} of {len(self.vertices)} vertices")

    def transformed(self, matrix: Tensor) -> "Mesh":
        """Return the mesh moved by a similarity (4, 4): a rotation, a scale, a translation and perhaps a reflection.

        Raises:
            ValueError: if the matrix is not a similarity, and so would not map normals to normals.
        """
        linear, shift = matrix.to(self.vertices)[:3, :3], matrix.to(self.vertices)[:3, 3]
        scale = float(matrix.detach()[:3, :3].double().det().abs()) ** (1 / 3)
        rotation = linear / max(scale, 1e-30)
        if tuple(matrix.shape) != (4, 4) or not torch.allclose(
            rotation @ rotation.T, torch.eye(3).to(rotation), atol=1e-4
        ):
            raise ValueError(f"mesh: a similarity of shape (4, 4) is needed, got {matrix.tolist()}")
        normals = None if self.normals is None else torch.nn.functional.normalize(self.normals @ rotation.T, dim=-1)
        faces = self.faces.flip(1) if rotation.det() < 0 else self.faces
        return replace(self, vertices=self.vertices @ linear.T + shift, faces=faces, normals=normals)

    def save(self, path: str | Path) -> None:
        """Write the mesh as binary .ply (colours in 8 bits) or as .obj; an existing file is replaced atomically.

        Raises:
            ValueError: if the suffix is not one of these, or the folder does not exist.
        """
        meshfile.write(Path(path), self.vertices, self.faces, self.normals, self.colors)


check_writable = meshfile.check_writable


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

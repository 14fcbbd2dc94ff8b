"""Distances from points to triangle meshes, and which points a closed mesh encloses."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from warpdvr.geometry.mesh import Mesh
from warpdvr.geometry.search import triangle_mesh
from warpdvr.kernels import closest
from warpdvr.kernels import inside as _inside
from warpdvr.runtime.launch import launch


def surface_distance(point: Float[Tensor, "n 3"], mesh: Mesh) -> Float[Tensor, " n"]:
    """Return the distance from points to the nearest point of a mesh [unit of the mesh].

    Not differentiable.

    Raises:
        ValueError: if the mesh has no faces, or a point is not finite.
    """
    return nearest(point, mesh)[0]


def signed_distance(point: Float[Tensor, "n 3"], mesh: Mesh) -> Float[Tensor, " n"]:
    """Return the distance from points to a closed mesh, negative inside [unit of the mesh]; not differentiable.

    Raises:
        ValueError: if the mesh is open, or a point is not finite.
    """
    distance = surface_distance(point, mesh)
    return torch.where(inside(point, mesh), -distance, distance)


def nearest(point: Float[Tensor, "n 3"], mesh: Mesh) -> tuple[Float[Tensor, " n"], Int[Tensor, " n"]]:
    """Return the distance from points to a mesh, and the face nearest to each."""
    if not len(mesh.faces):
        raise ValueError("surface_distance: the mesh has no faces")
    if not point.isfinite().all():
        raise ValueError("surface_distance: a point is not finite")
    x = mesh.vertices.detach().double()
    centre = (x.amax(0) + x.amin(0)) / 2  # in float64, for the kernel computes in float32, from small numbers
    vertices, point = (x - centre).float(), (point.detach().to(x) - centre).float().contiguous()
    d, face = point.new_empty(len(point)), point.new_empty(len(point), dtype=torch.int32)
    if len(point):
        far = 2 * float(point.norm(dim=-1).max() + vertices.norm(dim=-1).max()) + 1e-30
        search = triangle_mesh(vertices, mesh.faces)
        launch(closest.nearest, len(point), [search.id, point, far], [d, face], per_row=[point])
        if (face < 0).any():
            raise ValueError(f"surface_distance: the {len(mesh.faces)} faces of the mesh are next to needles")
    return d, face


def inside(point: Float[Tensor, "n 3"], mesh: Mesh) -> Bool[Tensor, " n"]:
    """Return which points lie inside a closed mesh.

    A point is inside if a ray from it crosses the surface an odd number of times (Mescheder et al. 2019), however the
    faces are wound. The overlap of two pieces of the mesh counts as outside.

    Raises:
        ValueError: if the mesh is open, or a point is not finite.
    """
    if not is_closed(mesh):
        raise ValueError(f"inside: the mesh of {len(mesh.faces)} faces is open, expected a closed one")
    if not point.isfinite().all():
        raise ValueError("inside: a point is not finite")
    x = mesh.vertices.detach().double()
    centre = (x.amax(0) + x.amin(0)) / 2  # in float64, for the kernel computes in float32, from small numbers
    point = (point.detach().to(x) - centre).float().contiguous()
    is_inside = torch.empty(len(point), dtype=torch.bool, device=point.device)
    search = triangle_mesh((x - centre).float(), mesh.faces)
    launch(_inside.inside, len(point), [search.id, point], [is_inside], per_row=[point])
    return is_inside


def is_closed(mesh: Mesh) -> bool:
    """Return whether an even number of faces, usually two, meet at each edge; False for a mesh without faces.

    Vertices at the same place count as one: files often repeat them along seams and creases.
    """
    place = torch.unique(mesh.vertices.detach(), dim=0, return_inverse=True)[1]
    corner = place[mesh.faces]
    corner = corner[(corner != corner.roll(1, 1)).all(1)]  # a face with a corner twice is an edge
    a, b = torch.stack([corner.reshape(-1), corner.roll(-1, 1).reshape(-1)]).sort(0).values
    count = torch.unique(a * len(mesh.vertices) + b, return_counts=True)[1]
    return len(corner) > 0 and bool((count % 2 == 0).all())

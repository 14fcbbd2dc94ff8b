"""What can be seen of a mesh from outside."""

from dataclasses import replace

import torch
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.paths import fibonacci_sphere
from warpdvr.geometry.mesh import Mesh, bounding_ball
from warpdvr.geometry.search import first_hit, triangle_mesh


def visible_surface(mesh: Mesh, *, views: int = 64, size: int = 128) -> Mesh:
    """Return the faces that can be seen from outside: what photographs can tell of an open or messy mesh.

    Orthographic cameras stand on a Fibonacci sphere around the mesh. A face stays if it is the first one that a ray of
    a camera meets, from whichever side. There is one ray through each pixel, which finds large faces that are mostly
    hidden, and one towards a random point of each face that was not seen so far, which finds faces smaller than a
    pixel. Of several faces with the same corners only one can stay. A part that is open to no camera is left out, such
    as the bottom of a hole deeper than wide: more `views` look into more of them.

    Args:
        mesh: normals and colours of its vertices are kept.
        views: number of cameras.
        size: width and height of their images [pixel].

    Returns:
        A mesh on the device of the given one, its faces and vertices in the same order.

    Raises:
        ValueError: if the mesh has no faces or no size, or there is no view or pixel.
    """
    if not len(mesh.faces):
        raise ValueError("visible_surface: the mesh has no faces")
    if views < 1 or size < 1:
        raise ValueError(f"visible_surface: expected views >= 1 and size >= 1, found {views} and {size}")
    faces = mesh.faces[_first_of_each(mesh)].cpu()
    x = _into_unit_sphere(mesh.vertices)
    search, generator = triangle_mesh(x, faces), torch.Generator().manual_seed(0)
    seen = torch.zeros(len(faces), dtype=torch.bool)
    for eye in 3 * fibonacci_sphere(views):
        camera = Camera.orthographic(eye, up=(0, 1, 0), width=size, height=size)
        forward = camera.pose[:3, 2].float()
        origin = torch.cat([camera.rays().origin, _points(x[faces[~seen]], generator) - 3 * forward])
        face = first_hit(search, origin, forward.expand_as(origin).contiguous())[0]
        seen[face[face >= 0].long()] = True
    return _part(mesh, faces[seen].to(mesh.faces))


def _first_of_each(mesh: Mesh) -> Tensor:
    """Return the indices of the faces, only the first of those whose corners lie at the same three places."""
    place = torch.unique(mesh.vertices.detach(), dim=0, return_inverse=True)[1]
    kind = torch.unique(place[mesh.faces].sort(1).values, dim=0, return_inverse=True)[1]
    index = torch.arange(len(kind), device=kind.device)
    first = torch.full_like(index, len(kind)).scatter_reduce(0, kind, index, "amin")
    return first[first < len(kind)].sort().values


def _into_unit_sphere(vertices: Tensor) -> Tensor:
    x = vertices.detach().double().cpu()
    try:
        centre, radius = bounding_ball(x)
    except ValueError as error:
        raise ValueError(f"visible_surface: {error}") from None
    return ((x - centre) / radius).float()


def _points(corner: Tensor, generator: torch.Generator) -> Tensor:
    """Return a random point in each triangle (m, 3, 3), shape (m, 3)."""
    weight = torch.rand(len(corner), 2, generator=generator)
    weight = torch.where(weight.sum(1, keepdim=True) > 1, 1 - weight, weight)
    return corner[:, 0] + (weight[..., None] * (corner[:, 1:] - corner[:, :1])).sum(1)


def _part(mesh: Mesh, faces: Tensor) -> Mesh:
    """Return a mesh with some of its faces, and the vertices that they need."""
    kept, faces = torch.unique(faces, return_inverse=True)
    normals, colors = (None if a is None else a[kept] for a in (mesh.normals, mesh.colors))
    return replace(mesh, vertices=mesh.vertices[kept], faces=faces, normals=normals, colors=colors)

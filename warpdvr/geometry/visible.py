"""Find the part of a mesh that is visible from outside."""

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.paths import fibonacci_sphere
from warpdvr.geometry.mesh import Mesh, bounding_ball
from warpdvr.geometry.search import first_hit, triangle_mesh


def visible_surface(mesh: Mesh, *, views: int = 64, size: int = 128) -> Mesh:
    """Return the faces that are visible from outside: all that photographs can show of an open or messy mesh.

    Orthographic cameras stand on a Fibonacci sphere around the mesh. A face is kept if it is the first one that a
    camera ray hits, from either side. Each camera casts one ray through each pixel, which finds large faces that are
    mostly hidden, and one towards a random point of each face not yet seen, which finds faces smaller than a pixel. Of
    several faces with the same corners only one is kept. A part that no camera sees is dropped, such as the bottom of
    a hole that is deeper than wide: more `views` look into more of them.

    Args:
        mesh: normals and colours of its vertices are kept.
        views: number of cameras.
        size: width and height of their images [pixel].

    Returns:
        A mesh on the same device, with its faces and vertices in the same order.

    Raises:
        ValueError: if the mesh has no faces or no size, or `views` or `size` is less than 1.
    """
    if not len(mesh.faces):
        raise ValueError("visible_surface: the mesh has no faces")
    if views < 1 or size < 1:
        raise ValueError(f"visible_surface: expected views >= 1 and size >= 1, found {views} and {size}")
    faces = mesh.faces[_distinct_faces(mesh)].cpu()
    x = _into_unit_sphere(mesh.vertices)
    search, generator = triangle_mesh(x, faces), torch.Generator().manual_seed(0)
    visible = torch.zeros(len(faces), dtype=torch.bool)
    for eye in 3 * fibonacci_sphere(views):
        camera = Camera.orthographic(eye, up=(0, 1, 0), width=size, height=size)
        forward = camera.pose[:3, 2].float()
        origin = torch.cat([camera.rays().origin, _random_points(x[faces[~visible]], generator) - 3 * forward])
        face = first_hit(search, origin, forward.expand_as(origin).contiguous())[0]
        visible[face[face >= 0].long()] = True
    return _submesh(mesh, faces[visible].to(mesh.faces))


def _distinct_faces(mesh: Mesh) -> Int[Tensor, " m"]:
    """Return the indices of the faces, of those with corners at the same three places only the first."""
    place = torch.unique(mesh.vertices.detach(), dim=0, return_inverse=True)[1]
    kind = torch.unique(place[mesh.faces].sort(1).values, dim=0, return_inverse=True)[1]
    index = torch.arange(len(kind), device=kind.device)
    first = torch.full_like(index, len(kind)).scatter_reduce(0, kind, index, "amin")
    return first[first < len(kind)].sort().values


def _into_unit_sphere(vertices: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    x = vertices.detach().double().cpu()
    try:
        centre, radius = bounding_ball(x)
    except ValueError as error:
        raise ValueError(f"visible_surface: {error}") from None
    return ((x - centre) / radius).float()


def _random_points(corner: Float[Tensor, "m 3 3"], generator: torch.Generator) -> Float[Tensor, "m 3"]:
    """Return a random point in each triangle."""
    weight = torch.rand(len(corner), 2, generator=generator)
    weight = torch.where(weight.sum(1, keepdim=True) > 1, 1 - weight, weight)
    return corner[:, 0] + (weight[..., None] * (corner[:, 1:] - corner[:, :1])).sum(1)


def _submesh(mesh: Mesh, faces: Int[Tensor, "m 3"]) -> Mesh:
    """Return a mesh of some of the faces, with only the vertices that they use."""
    used, faces = torch.unique(faces, return_inverse=True)
    normals, colors = (None if a is None else a[used] for a in (mesh.normals, mesh.colors))
    return replace(mesh, vertices=mesh.vertices[used], faces=faces, normals=normals, colors=colors)

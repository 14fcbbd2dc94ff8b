"""Distances between surfaces, from points of one to the triangles of the other."""

from dataclasses import dataclass

import torch
from torch import Tensor

from warpdvr.bridge import launch, triangle_mesh
from warpdvr.kernels import closest
from warpdvr.mesh import Mesh


@dataclass(frozen=True)
class Distances:
    """How far two surfaces lie from each other; every length is in the unit of the meshes."""

    accuracy: float
    """Mean distance from the predicted surface to the true one [unit of the meshes]."""
    completeness: float
    """Mean distance from the true surface to the predicted one [unit of the meshes]."""
    chamfer_l1: float
    """Half the sum of accuracy and completeness [unit of the meshes]."""
    extent: float
    """Largest side of the true mesh's box: divide by it to compare objects of different sizes [unit of the meshes]."""
    samples: int
    """Number of points on each surface."""


def chamfer(predicted: Mesh, truth: Mesh, *, samples: int = 100_000, seed: int = 0) -> Distances:
    """Measure the distance between two surfaces, both ways, point to surface.

    Points are spread evenly over the area of each mesh. They are measured against triangles and not against points of
    the other mesh, so that two samplings of one surface are at distance 0 (up to rounding), whatever their number.

    Args:
        predicted: the mesh to judge.
        truth: the mesh to judge it by, in the same frame and unit.
        samples: number of points on each mesh.
        seed: start of the random numbers; the same seed gives the same points on every device.

    Raises:
        ValueError: if a mesh has no area, or there are no samples.
    """
    there = surface_distance(sample(predicted, samples, seed=seed), truth)
    back = surface_distance(sample(truth, samples, seed=seed + 1), predicted)
    accuracy, completeness = (float(d.double().mean()) for d in (there, back))
    extent = float((truth.vertices.amax(0) - truth.vertices.amin(0)).max())
    return Distances(accuracy, completeness, (accuracy + completeness) / 2, extent, samples)


def sample(mesh: Mesh, n: int, *, seed: int = 0) -> Tensor:
    """Return `n` random points on a mesh, spread evenly over its area, shape (n, 3) [unit of the mesh].

    Raises:
        ValueError: if the mesh has no area, or `n` is less than 1.
    """
    if n < 1:
        raise ValueError(f"sample: at least one point is needed, got {n}")
    corner = mesh.vertices.detach().double().cpu()[mesh.faces.long().cpu()]
    side = corner[:, 1:] - corner[:, :1]
    total = torch.linalg.cross(side[:, 0], side[:, 1]).norm(dim=-1).cumsum(0)
    if not len(total) or not total[-1] > 0:
        raise ValueError(f"sample: the mesh has no area, it has {len(total)} faces")
    u = torch.rand(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    face = torch.searchsorted(total, u[:, 0] * total[-1], right=True).clamp_max(len(total) - 1)
    weight = torch.where(u[:, 1:].sum(1, keepdim=True) > 1, 1 - u[:, 1:], u[:, 1:])
    point = corner[face, 0] + (weight[..., None] * side[face]).sum(1)
    return point.to(mesh.vertices)


def surface_distance(point: Tensor, mesh: Mesh) -> Tensor:
    """Return the distance from points (n, 3) to the nearest point of a mesh, shape (n,) [unit of the mesh].

    Not differentiable.

    Raises:
        ValueError: if the mesh has no faces, or a point is not finite.
    """
    if not len(mesh.faces):
        raise ValueError("surface_distance: the mesh has no faces")
    if not point.isfinite().all():
        raise ValueError("surface_distance: a point is not finite")
    centre = (mesh.vertices.amax(0) + mesh.vertices.amin(0)) / 2  # small numbers: the kernel counts in float32
    vertices = (mesh.vertices - centre).detach()
    point = (point.to(mesh.vertices) - centre).detach().contiguous()
    d = point.new_empty(len(point))
    if len(point):
        far = 2 * float(point.norm(dim=-1).max() + vertices.norm(dim=-1).max()) + 1e-30
        search = triangle_mesh(vertices, mesh.faces)
        launch(closest.distance, len(point), [search.id, point, far], [d], per_row=[point])
    return d

"""Measure distances between surfaces, from points on one to the triangles of the other, and derive scores."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from warpdvr.evaluation.volumes import volume_iou
from warpdvr.geometry.distance import nearest
from warpdvr.geometry.mesh import Mesh


@dataclass(frozen=True)
class Distances:
    """Distances and scores of two surfaces; every length is in the unit of the meshes."""

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
    chamfer_dvr: float
    """Chamfer-L1 in the unit of DVR's tables, a tenth of the extent (Niemeyer et al. 2020, after Fan et al. 2017)."""
    f_score: float
    """Harmonic mean of precision and recall, the shares of the predicted and of the true surface that lie within a
    threshold of the other surface (Tatarchenko et al. 2019), in [0, 1]."""
    normal_consistency: float
    """Mean |cosine| between the normal of a face and that of the nearest face of the other mesh, averaged over both
    directions (Mescheder et al. 2019, supplement), in [0, 1]."""
    volume_iou: float | None
    """Volume of the intersection over that of the union, in [0, 1]; None unless both meshes are closed."""


def chamfer(
    predicted: Mesh, truth: Mesh, *, samples: int = 100_000, seed: int = 0, threshold: float = 0.01
) -> Distances:
    """Measure the distance between two surfaces in both directions, from points to triangles.

    Points are spread evenly over the area of each mesh. They are compared with the triangles of the other mesh and not
    with points on it, so that a surface is at distance 0 from itself (up to rounding) for any number of points. DVR
    compares with 100,000 points: there a perfect surface still has a `chamfer_dvr` of about 0.02.

    Args:
        predicted: the mesh to judge.
        truth: the true mesh, in the same frame and unit.
        samples: number of points on each mesh.
        seed: seed of the random points; the same seed gives the same points on every device.
        threshold: threshold of the F-score, as a share of the extent.

    Raises:
        ValueError: if a mesh has no area, there are no samples, or the threshold is not positive.
    """
    if not threshold > 0:
        raise ValueError(f"chamfer: the threshold must be positive, got {threshold}")
    to_truth, to_truth_cosine = _compare(predicted, truth, samples, seed)
    to_predicted, to_predicted_cosine = _compare(truth, predicted, samples, seed + 1)
    accuracy, completeness = float(to_truth.mean()), float(to_predicted.mean())
    extent = float((truth.vertices.amax(0) - truth.vertices.amin(0)).max())
    precision, recall = (float((d <= threshold * extent).double().mean()) for d in (to_truth, to_predicted))
    return Distances(
        accuracy=accuracy,
        completeness=completeness,
        chamfer_l1=(accuracy + completeness) / 2,
        extent=extent,
        samples=samples,
        chamfer_dvr=10 * (accuracy + completeness) / 2 / extent,
        f_score=2 * precision * recall / max(precision + recall, 1e-30),
        normal_consistency=float(to_truth_cosine.mean() + to_predicted_cosine.mean()) / 2,
        volume_iou=volume_iou(predicted, truth, seed=seed + 2),
    )


def sample(mesh: Mesh, n: int, *, seed: int = 0) -> Float[Tensor, "n 3"]:
    """Return `n` random points on a mesh, spread evenly over its area [unit of the mesh].

    Raises:
        ValueError: if the mesh has no area, or `n` is less than 1.
    """
    return _sample(mesh, n, seed)[0].to(mesh.vertices)


def _compare(source: Mesh, target: Mesh, samples: int, seed: int) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Return the distance and |cosine of the normals| from random points on one mesh to the other."""
    point, face = _sample(source, samples, seed)
    d, nearest_face = nearest(point, target)
    cosine = (_normals(source)[face] * _normals(target)[nearest_face.cpu().long()]).sum(1).abs()
    return d.double(), cosine


def _sample(mesh: Mesh, n: int, seed: int) -> tuple[Float[Tensor, "n 3"], Int[Tensor, " n"]]:
    """Return random points on a mesh, float64, and the faces that they lie on, both on the CPU."""
    if n < 1:
        raise ValueError(f"sample: at least one point is needed, got {n}")
    corner = _corners(mesh)
    side = corner[:, 1:] - corner[:, :1]
    total = torch.linalg.cross(side[:, 0], side[:, 1]).norm(dim=-1).cumsum(0)
    if not len(total) or not total[-1] > 0:
        raise ValueError(f"sample: the mesh has no area, it has {len(total)} faces")
    u = torch.rand(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    face = torch.searchsorted(total, u[:, 0] * total[-1], right=True).clamp_max(len(total) - 1)
    weight = torch.where(u[:, 1:].sum(1, keepdim=True) > 1, 1 - u[:, 1:], u[:, 1:])
    point = corner[face, 0] + (weight[..., None] * side[face]).sum(1)
    return point, face


def _normals(mesh: Mesh) -> Float[Tensor, "m 3"]:
    """Return the unit normals of the faces, 0 for a face without area, float64, on the CPU."""
    a, b, c = _corners(mesh).unbind(1)
    return torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=-1, eps=1e-300)


def _corners(mesh: Mesh) -> Float[Tensor, "m 3 3"]:
    """Return the corners of the faces, float64, on the CPU."""
    return mesh.vertices.detach().double().cpu()[mesh.faces.long().cpu()]

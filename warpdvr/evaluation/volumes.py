"""Measure how much two solids overlap."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from warpdvr.evaluation.overlap import iou
from warpdvr.geometry.mesh import Mesh
from warpdvr.geometry.search import triangle_mesh
from warpdvr.kernels import inside as _inside
from warpdvr.runtime.launch import launch


def volume_iou(predicted: Mesh, truth: Mesh, *, samples: int = 100_000, seed: int = 0) -> float | None:
    """Return the volume of the intersection of two solids over that of their union, or None where it is undefined.

    It is estimated from random points, spread evenly over the box around both, with a standard error of
    `sqrt(IoU (1 - IoU) / points in the union)`. It is undefined if a mesh is open, or if no point lies inside the true
    mesh, such as a mesh that repeats each of its faces.

    Args:
        predicted, truth: two meshes in the same frame and unit.
        samples: number of points in the box.
        seed: seed of the random points; the same seed gives the same points on every device.

    Raises:
        ValueError: if there are no samples.
    """
    if samples < 1:
        raise ValueError(f"volume_iou: at least one point is needed, got {samples}")
    if not (is_closed(predicted) and is_closed(truth)):
        return None
    vertices = torch.cat([mesh.vertices.detach().double().cpu() for mesh in (predicted, truth)])
    low, high = vertices.amin(0), vertices.amax(0)
    u = torch.rand(samples, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    point = low + u * (high - low)
    a, b = (inside(point, mesh).cpu() for mesh in (predicted, truth))
    return float(iou(a[None], b[None])) if b.any() else None


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

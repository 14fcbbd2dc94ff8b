"""Measure how much two solids overlap."""

import torch

from warpdvr.evaluation.overlap import iou
from warpdvr.geometry.distance import inside, is_closed
from warpdvr.geometry.mesh import Mesh


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

"""Rays and triangles: which one is met first."""

from typing import Any

import torch
import warp as wp
from torch import Tensor

from warpdvr.kernels import raycast
from warpdvr.runtime.launch import launch, warp_scope


def first_hit(mesh: Any, origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return face (n,), -1 for a miss, ray length (n,) and corner weights (n, 3) where rays first meet a `wp.Mesh`."""
    n = len(origin)
    face, t, weight = torch.empty(n, dtype=torch.int32), torch.zeros(n), torch.zeros(n, 3)
    launch(raycast.first_hit, n, [mesh.id, origin, direction], [face, t, weight], per_row=[origin, direction])
    return face, t, weight


def triangle_mesh(vertices: Tensor, faces: Tensor) -> Any:
    """Build Warp's search structure over triangles; pass its `id` to kernels and keep it alive until they ran.

    Args:
        vertices: shape (n, 3), float32.
        faces: shape (m, 3), indices of vertices.

    Raises:
        ValueError: if there is no triangle; a query of none would end the process.
    """
    if len(faces) == 0:
        raise ValueError("mesh: expected triangles to search among, found none")
    with warp_scope(vertices.device):
        points: Any = wp.from_torch(vertices.detach().contiguous(), dtype=wp.vec3)
        index: Any = wp.from_torch(faces.int().reshape(-1).contiguous())
        return wp.Mesh(points, index)

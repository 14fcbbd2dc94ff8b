"""Cast rays at triangle meshes: find the first triangle that each ray hits."""

from typing import Any

import torch
import warp as wp
from jaxtyping import Float, Int
from torch import Tensor

from warpdvr.kernels import raycast
from warpdvr.runtime.launch import launch, warp_device, warp_scope


def first_hit(
    mesh: wp.Mesh, origin: Float[Tensor, "n 3"], direction: Float[Tensor, "n 3"]
) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"], Float[Tensor, "n 3"]]:
    """Return the face that each ray hits first, -1 for a miss, the ray length and the barycentric weights there.

    Raises:
        ValueError: if rays and mesh are on different devices.
    """
    n, device = len(origin), origin.device
    if mesh.device != warp_device(device):  # a kernel would read memory of another device
        raise ValueError(f"first_hit: rays on {device}, but the mesh on {mesh.device}; move one to the other")
    face, t = torch.empty(n, dtype=torch.int32, device=device), torch.zeros(n, device=device)
    weight = torch.zeros(n, 3, device=device)
    launch(raycast.first_hit, n, [mesh.id, origin, direction], [face, t, weight], per_row=[origin, direction])
    return face, t, weight


def triangle_mesh(vertices: Float[Tensor, "n 3"], faces: Int[Tensor, "m 3"]) -> wp.Mesh:
    """Build Warp's search structure over triangles; pass its `id` to kernels and keep it alive until they have run.

    Args:
        vertices: positions, float32.
        faces: indices of vertices.

    Raises:
        ValueError: if there is no triangle; a query of an empty structure would crash the process.
    """
    if len(faces) == 0:
        raise ValueError("mesh: expected triangles to search among, found none")
    with warp_scope(vertices.device):
        points: Any = wp.from_torch(vertices.detach().contiguous(), dtype=wp.vec3)
        index: Any = wp.from_torch(faces.int().reshape(-1).contiguous())
        return wp.Mesh(points, index)

"""What visual hulls are carved by (Laurentini 1994): balls that a view sees in its background, and where axes meet."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from warpdvr.cameras.projection import Projection


def ball_images(
    local: Float[Tensor, "n 3"], rho: float, projection: Projection, K: Float[Tensor, "3 3"]
) -> tuple[Float[Tensor, "n 2"], Float[Tensor, " n"], Bool[Tensor, " n"]]:
    """Return pixels and radii of the images of balls [pixel], and which lie in front of the camera.

    Args:
        local: their centres in camera axes.
        rho: their radius; 0 for points.
        projection, K: the camera.
    """
    front = local[:, 2] > rho
    safe = torch.where(front[:, None], local, torch.tensor([0.0, 0.0, 1.0 + rho]).to(local))
    return projection.local_project(K, safe), projection.image_radius(K, safe, rho), front


def project_balls(
    local: Float[Tensor, "n 3"],
    rho: float,
    projection: Projection,
    K: Float[Tensor, "3 3"],
    table: Int[Tensor, "rows columns"],
) -> tuple[Bool[Tensor, " n"], Bool[Tensor, " n"]]:
    """Return which balls are in the image, at least in part, and which lie entirely in the background.

    Args:
        local: their centres in camera axes.
        rho: their radius; 0 for points.
        projection, K: the camera.
        table: the `summed_area` of the mask.
    """
    uv, radius, front = ball_images(local, rho, projection, K)
    size = torch.tensor([table.shape[1] - 1, table.shape[0] - 1]).to(uv)
    first, last = (uv - radius[:, None]).floor(), (uv + radius[:, None]).floor() + 1
    visible = front & (last > 0).all(1) & (first < size).all(1)
    whole = front & (first >= 0).all(1) & (last <= size).all(1)
    (u0, v0), (u1, v1) = (torch.where(whole[:, None], a, 0.0).long().unbind(1) for a in (first, last))
    count = table[v1, u1] - table[v0, u1] - table[v1, u0] + table[v0, u0]
    return visible, whole & (count == 0)


def summed_area(mask: Bool[Tensor, "h w"]) -> Int[Tensor, "h+1 w+1"]:
    """Return, for each pixel corner, how many pixels above and left of it show the object."""
    sums = mask.cumsum(0, dtype=torch.int32).cumsum(1, dtype=torch.int32)
    return torch.nn.functional.pad(sums, (1, 0, 1, 0))


def axes_equations(o: Float[Tensor, "v 3"], d: Float[Tensor, "v 3"]) -> tuple[Float[Tensor, "3 3"], Float[Tensor, "3"]]:
    """Return A and b of the normal equations A x = b for the point x nearest to all lines o + t d, |d| = 1."""
    perpendicular = torch.eye(3).to(d) - d[:, :, None] * d[:, None, :]
    return perpendicular.sum(0), (perpendicular @ o[..., None]).sum(0)[:, 0]

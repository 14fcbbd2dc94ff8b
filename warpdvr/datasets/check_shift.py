"""Whether pixels are counted from their corners or their centres: a shift of half a pixel of all outlines.

The soft hull is measured in pixels: at a point it is the largest signed distance to any view's outline, positive
outside. Along the ray through a point of an outline its minimum is zero where all views agree; a common shift of the
pictures raises it on average, because views from opposite sides are shifted to opposite sides.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample

from warpdvr.cameras.camera import Camera
from warpdvr.datasets.check_cameras import evenly
from warpdvr.datasets.check_hull import Hull
from warpdvr.datasets.views import Views

REACH = 4
"""Distances from an outline are known up to here [pixel]."""

WITNESSES, CARVERS, POINTS, STEPS = 10, 24, 80, 320
"""Views whose outlines are followed, views that carve, points per outline, and steps along each ray."""

SHIFTS = (-1.0, -0.5, 0.0, 0.5, 1.0)
"""What is added to the pixels [pixel]."""

LARGEST = 1000
"""In pictures with a longer side than this half a pixel does not matter, and is not looked for [pixel]."""


CLEARLY = 0.06
"""A shift is named if outlines disagree less by this with it than with those half a pixel to both sides. On exact masks
of 400 pixels half a pixel is worth 0.12; on photographs with rough masks it cannot be measured [pixel]."""


def shift_errors(views: Views, hull: Hull, origin: Float[Tensor, "3"]) -> dict[float, float]:
    """Return for each shift of all pictures, by how much outlines disagree [pixel]; empty for large pictures.

    Args:
        views: in the frame of the data.
        hull: of the views, in a frame whose origin is at `origin` of the data's.
        origin: [unit of the data].
    """
    masked = [i for i, mask in enumerate(views.masks) if mask is not None]
    chosen = evenly(masked, CARVERS)
    if max(max(views.cameras[i].width, views.cameras[i].height) for i in chosen) > LARGEST or len(hull.x) == 0:
        return {}
    distance = {i: _signed_distance(views, i) for i in chosen}
    middle, radius = hull.x.double().mean(0) + origin, 1.2 * float((hull.x - hull.x.mean(0)).norm(dim=1).max())
    errors = {}
    for shift in SHIFTS:
        parts = [_disagreement(views, distance, i, shift, middle, radius) for i in evenly(chosen, WITNESSES)]
        errors[shift] = float(torch.cat(parts).mean())
    return errors


def best_shift(errors: dict[float, float]) -> float:
    """Return the shift that is clearly better than its neighbours, -0.5 or 0.5; 0 if there is none."""
    for shift in (-0.5, 0.5):
        beside = min(errors.get(shift - 0.5, 0.0), errors.get(shift + 0.5, 0.0))
        if errors and beside - errors[shift] > CLEARLY:
            return shift
    return 0.0


def _signed_distance(views: Views, i: int) -> Float[Tensor, "h w"]:
    """Return the distance of pixels from the outline of a mask, positive outside, at most about `REACH` [pixel]."""
    mask = views.masks[i]
    if mask is None:
        raise ValueError(f"view {views.names[i]} has no mask")
    share = avg_pool2d(mask.float()[None], 2 * REACH + 1, 1, REACH, count_include_pad=False)[0]
    return (0.5 - share) * (2 * REACH + 1)


def _disagreement(
    views: Views,
    distance: dict[int, Float[Tensor, "_ _"]],
    i: int,
    shift: float,
    middle: Float[Tensor, "3"],
    radius: float,
) -> Float[Tensor, " k"]:
    """Return the least distance from the soft hull along the rays through an outline [pixel]."""
    own = distance[i][REACH:-REACH, REACH:-REACH]
    v, u = torch.nonzero(own.abs() < 0.7, as_tuple=True)
    few = torch.linspace(0, max(0, len(u) - 1), min(POINTS, len(u))).round().long()
    pixel = torch.stack([u[few], v[few]], 1).double() + REACH + 0.5
    level = own[v[few], u[few]]
    rays = views.cameras[i].rays(pixel + shift, dtype=torch.float64)
    towards = ((middle - rays.origin) * rays.direction).sum(1)
    t = towards[:, None] + radius * torch.linspace(-1, 1, STEPS).double()
    x = (rays.origin[:, None] + t[..., None] * rays.direction[:, None]).reshape(-1, 3)
    worst = torch.full((len(x),), -float(REACH))
    for j, table in distance.items():
        if j != i:
            worst = torch.maximum(worst, _sample(views.cameras[j], table, x, shift))
    return worst.reshape(-1, STEPS).amin(1) - level


def _sample(camera: Camera, table: Float[Tensor, "h w"], x: Float[Tensor, "n 3"], shift: float) -> Float[Tensor, " n"]:
    """Return the distance from a view's outline at points; as far inside as can be where they are not in its image."""
    uv, z = camera.project(x)
    size = torch.tensor([camera.width, camera.height]).to(uv)
    at = ((uv - shift) / size * 2 - 1).float()
    inside = (z > 0) & (at.abs() < 1).all(1)
    value = grid_sample(table[None, None], at[None, None], align_corners=False, padding_mode="border")[0, 0, 0]
    return torch.where(inside, value, -float(REACH))

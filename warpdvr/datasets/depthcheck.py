"""Check that depth maps are z-depth in the unit of the cameras, against the masks and the depth of the other views."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.datasets.views import Views

UNIT_FACTORS = (1e-3, 1e-2, 0.1, 10.0, 100.0, 1000.0)
"""Factors between units that are often confused."""

MIN_INSIDE = 0.5
"""The smallest accepted share of the depth inside the other views' masks. On renders at 40 degrees correct depth has
0.98 (0.88 with 2 % of noise), depth that is wrong by a factor of 2 has 0.05; by 1.2 it has 0.6 to 0.7, and passes."""

DEPTH_TOLERANCE, MAX_IN_FRONT = 0.01, 0.03
"""How to tell ray length from z-depth: by the share of points that lie more than 1 % of the depth in front of the
surface that another view sees. On renders at 40 degrees it is 0.5 to 1.2 % for correct depth, and 6 to 10 % for ray
lengths that are read as z-depth."""


def check_depth(views: Views, path: Path, depth_scale: float) -> float:
    """Check the depth against masks and other views; return the share of it that lies inside the masks.

    Args:
        views: with depth, in the scene frame.
        path: a file of the depth, for messages.
        depth_scale: the factor that the maps have already been multiplied by.

    Raises:
        ValueError: if the depth is in another unit than the cameras, or is ray length; the message names the remedy.
    """
    inside, in_front = depth_agreement(views)
    if inside < MIN_INSIDE:
        shares = {factor: float(np.nan_to_num(depth_agreement(views, factor)[0])) for factor in UNIT_FACTORS}
        best = max(shares, key=lambda factor: shares[factor])
        advice = (
            f"multiplied by {best:g}, {as_percent(shares[best])} would: pass depth_scale={depth_scale * best:g}"
            if shares[best] >= MIN_INSIDE
            else "no power of ten as a factor would help: check that it is z-depth [unit of the data] of these cameras"
        )
        raise ValueError(
            f"{path}: only {as_percent(inside)} of the depth lies inside of the other views' masks; {advice}"
        )
    if in_front > MAX_IN_FRONT and depth_agreement(views, ray=True)[1] < in_front / 3:
        raise ValueError(
            f"{path}: {as_percent(in_front)} of the depth lies in front of what other views see, but hardly any would "
            "if it were ray length instead of z-depth; multiply it by the cosine of the angle between ray and optical "
            "axis"
        )
    return inside


def depth_agreement(views: Views, factor: float = 1.0, *, ray: bool = False) -> tuple[float, float]:
    """Measure how well the depth agrees with the other views, at a few thousand pixels on the object.

    Args:
        views: with depth, in the scene frame.
        factor: multiplies the depth.
        ray: interpret the depth as ray length instead of z-depth.

    Returns:
        inside: the share of the back-projected points, each projected into the other views with masks, that lie in
            front of the camera and inside the mask. A point outside an image counts as outside the mask if the mask
            does not touch the border, and is not counted otherwise. NaN if no point can be judged.
        in_front: the share of the points inside that lie in front of the depth that the other view sees there. With an
            opaque object it is 0 up to noise.
    """
    usable = [i for i, (m, d) in enumerate(zip(views.masks, views.depths, strict=True)) if m is not None is not d]
    masked = _pick_evenly([i for i, m in enumerate(views.masks) if m is not None], 16)
    n_inside = n_judged = n_in_front = n_compared = 0
    for i in _pick_evenly(usable, 8):
        x = _sample_points(views, i, factor, ray)
        for j in masked:
            if i != j:
                counts = _count_points(views, j, x, factor, ray)
                n_inside, n_judged, n_in_front, n_compared = (
                    a + b for a, b in zip((n_inside, n_judged, n_in_front, n_compared), counts, strict=True)
                )
    return n_inside / n_judged if n_judged else np.nan, n_in_front / n_compared if n_compared else np.nan


def in_image(camera: Camera, pixel: Float[Tensor, "n 2"]) -> Bool[Tensor, " n"]:
    """Return whether positions [pixel] lie in the image."""
    size = torch.tensor([camera.width, camera.height])
    inside: Tensor = ((pixel >= 0) & (pixel < size.to(pixel))).all(1)
    return inside


def as_percent(share: float) -> str:
    """Format a share as a percentage with three digits."""
    return f"{100 * share:.3g} %"


def _sample_points(views: Views, i: int, factor: float, ray: bool, count: int = 400) -> Float[Tensor, "n 3"]:
    """Return at most `count` evenly chosen points [scene unit] of view i's depth on the object."""
    camera, depth, mask = views.cameras[i], views.depths[i], views.masks[i]
    if depth is None or mask is None:
        return torch.empty(0, 3, dtype=torch.float64)
    index = (mask & ~depth.isnan()).nonzero()
    index = index[_pick_evenly(list(range(len(index))), count)]
    v, u = index.unbind(1)
    origin, slope = _pixel_rays(camera, index)
    z = factor * depth[v, u].double() / (slope.norm(dim=1) if ray else 1)
    return (origin + slope * z[:, None]) @ camera.pose[:3, :3].T + camera.centre


def _count_points(views: Views, j: int, x: Float[Tensor, "n 3"], factor: float, ray: bool) -> tuple[int, int, int, int]:
    """Count the points that view j sees inside its mask, can judge, sees in front of its depth, and can compare."""
    camera, depth, mask = views.cameras[j], views.depths[j], views.masks[j]
    if mask is None:
        return 0, 0, 0, 0
    pixel, z = camera.project(x)
    imaged = (z > 0) & in_image(camera, pixel)
    border = torch.cat([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    judged = imaged | (z <= 0) | ~border.any()
    u, v = pixel[imaged].long().unbind(1)
    on_object = mask[v, u]
    n_inside, n_judged = int(on_object.sum()), int(judged.sum())
    if depth is None:
        return n_inside, n_judged, 0, 0
    index = torch.stack([v, u], 1)[on_object]
    surface_z = factor * depth[index[:, 0], index[:, 1]].double()
    if ray:
        surface_z = surface_z / _pixel_rays(camera, index)[1].norm(dim=1)
    in_front = z[imaged][on_object] < (1 - DEPTH_TOLERANCE) * surface_z  # False where it is missing
    return n_inside, n_judged, int(in_front.sum()), int((~surface_z.isnan()).sum())


def _pixel_rays(camera: Camera, index: Int[Tensor, "n 2"]) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """Return origins and directions with z = 1, in camera axes, of the rays through pixels (row, column)."""
    centres = index.flip(1).to(camera.K) + 0.5
    origin, direction = camera.projection.local_rays(camera.K.expand(len(index), 3, 3), centres)
    return origin, direction / direction[:, 2:]


def _pick_evenly(items: list[int], n: int) -> list[int]:
    """Return at most n of the items, evenly chosen."""
    return [items[k * len(items) // n] for k in range(n)] if len(items) > n else items

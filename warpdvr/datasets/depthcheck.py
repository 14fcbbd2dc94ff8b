"""Check that depth maps are z-depth in the unit of the cameras, against the masks and the depth of the other views."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.datasets.views import Views

UNIT_FACTORS = (1e-3, 1e-2, 0.1, 10.0, 100.0, 1000.0)
"""Factors between units that are often mistaken for each other."""

MIN_INSIDE = 0.5
"""The least share of the depth that lies inside of the other views' masks. On renders at 40 degrees right depth has
0.98 (0.88 with 2 % of noise), depth that is wrong by a factor of 2 has 0.05; by 1.2 it has 0.6 to 0.7, and passes."""

DEPTH_TOLERANCE, MAX_IN_FRONT = 0.01, 0.03
"""How ray lengths are told from z-depth: by points that lie in front of what another view sees by more than 1 % of its
depth. On renders at 40 degrees right depth has 0.5 to 1.2 % of them, and ray lengths read as z-depth have 6 to 10 %."""


def check_depth(views: Views, path: Path, depth_scale: float) -> float:
    """Return the share of the depth that `depth_agreement` finds inside of the masks.

    Args:
        views: with depth, in the scene frame.
        path: a file of the depth, for messages.
        depth_scale: the factor that the maps were multiplied by already.

    Raises:
        ValueError: if the depth is in another unit than the cameras, or if it is ray length; names the remedy.
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
    """Return how well the depth agrees with the other views, from some thousand pixels on the object.

    Args:
        views: with depth, in the scene frame.
        factor: multiplies the depth.
        ray: take the depth for ray length instead of z-depth.

    Returns:
        inside: the share of the back-projected points, each seen from the other views with masks, that lie in front of
            the camera and inside of the mask. What lies outside of an image counts where the mask stays clear of the
            border, and is unknown otherwise. NaN if nothing can be said.
        in_front: the share of the points inside that lie in front of the depth that the other view sees there. Opaque
            objects allow of none but for noise.
    """
    usable = [i for i, (m, d) in enumerate(zip(views.masks, views.depths, strict=True)) if m is not None is not d]
    others = _pick_evenly([i for i, m in enumerate(views.masks) if m is not None], 16)
    n_inside = n_judged = n_in_front = n_compared = 0
    for i in _pick_evenly(usable, 8):
        x = _sample_points(views, i, factor, ray)
        for j in others:
            if i != j:
                counts = _count_points(views, j, x, factor, ray)
                n_inside, n_judged, n_in_front, n_compared = (
                    a + b for a, b in zip((n_inside, n_judged, n_in_front, n_compared), counts, strict=True)
                )
    return n_inside / n_judged if n_judged else np.nan, n_in_front / n_compared if n_compared else np.nan


def in_image(camera: Camera, pixel: Tensor) -> Tensor:
    """Return whether positions (n, 2) [pixel] lie in the image, (n,)."""
    size = torch.tensor([camera.width, camera.height])
    inside: Tensor = ((pixel >= 0) & (pixel < size.to(pixel))).all(1)
    return inside


def as_percent(share: float) -> str:
    """Return a share in percent, to three digits."""
    return f"{100 * share:.3g} %"


def _sample_points(views: Views, i: int, factor: float, ray: bool, n: int = 400) -> Tensor:
    """Return at most n points (n, 3) [scene unit] of view i's depth on the object, evenly chosen."""
    camera, depth, mask = views.cameras[i], views.depths[i], views.masks[i]
    if depth is None or mask is None:
        return torch.empty(0, 3, dtype=torch.float64)
    index = (mask & ~depth.isnan()).nonzero()
    index = index[_pick_evenly(list(range(len(index))), n)]
    v, u = index.unbind(1)
    slope = _slope(camera, index)
    z = factor * depth[v, u].double() / (slope.norm(dim=1) if ray else 1)
    return slope * z[:, None] @ camera.pose[:3, :3].T + camera.centre


def _count_points(views: Views, j: int, x: Tensor, factor: float, ray: bool) -> tuple[int, int, int, int]:
    """Return how many of the points (n, 3) view j has inside of its mask, can judge, has in front of its depth, and
    can compare with its depth."""
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
        surface_z = surface_z / _slope(camera, index).norm(dim=1)
    in_front = z[imaged][on_object] < (1 - DEPTH_TOLERANCE) * surface_z  # False where it is missing
    return n_inside, n_judged, int(in_front.sum()), int((~surface_z.isnan()).sum())


def _slope(camera: Camera, index: Tensor) -> Tensor:
    """Return x / z (n, 3), in camera axes, of what is seen at pixels (row, column) (n, 2)."""
    centres = index.flip(1).to(camera.K) + 0.5
    slope: Tensor = torch.cat([centres, torch.ones_like(centres[:, :1])], 1) @ torch.linalg.inv(camera.K).T
    return slope


def _pick_evenly(items: list[int], n: int) -> list[int]:
    """Return at most n of the items, evenly chosen."""
    return [items[k * len(items) // n] for k in range(n)] if len(items) > n else items

"""Find the object, from masks or from cameras alone, and put it into the unit sphere."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.transform import SceneTransform
from warpdvr.datasets.views import Views
from warpdvr.runtime.threads import one_thread

RADIUS = 0.9
"""The object lies within this distance from the origin [scene unit]."""

SHARE = 2 / 3
"""The share of the views that must have a point in their image; near the cameras few have, and the hull frays."""

COARSE, FINE = 32, 48
"""Cells along each side of the box that is carved, while it closes in on the hull and at last."""


def normalised(views: Views, where: Path) -> Views:
    """Return `views`, whose cameras are in the data's own frame, in the scene frame; the axes keep their directions.

    A single view is returned as it is: it does not tell where its object lies.

    The visual hull of the masks lies within `RADIUS` of the origin, to about 2 %: a cell of the carved grid. With fewer
    than two masks the object is taken to be where the optical axes meet, and to be as large as the images allow.

    Raises:
        ValueError: if the hull is empty, or the cameras do not look at anything in common; names `where`.
    """
    if len(views) == 1:
        return views
    masked = [(c, m) for c, m in zip(views.cameras, views.masks, strict=True) if m is not None]
    try:
        if len(masked) >= 2:
            centre, radius = extent_from_masks([c for c, _ in masked], [m for _, m in masked])
            source = "visual hull of the masks"
        else:
            centre, radius = extent_from_axes(views.cameras)
            source = "optical axes alone: there are no masks to find the object by"
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    transform = SceneTransform.around(centre, radius / RADIUS)
    middle = ", ".join(f"{c:.4g}" for c in centre.tolist())
    unit = f"1 scene unit = {transform.scale:.4g} units of the data"
    summary = f"{views.summary} Scale from the {source}: centre ({middle}), {unit}."
    return replace(views, cameras=tuple(map(transform.to_scene, views.cameras)), transform=transform, summary=summary)


def extent_from_masks(cameras: Sequence[Camera], masks: Sequence[Tensor]) -> tuple[Tensor, float]:
    """Return the middle (3,) and the radius of the visual hull.

    A point is outside of the hull if a view sees background there. What lies outside of an image is unknown, but only
    points that at least two thirds of the views see count.

    Raises:
        ValueError: if nothing is left.
    """
    centre, distance = meeting_point(cameras)
    low, high = centre - distance, centre + distance
    tables = [_summed(mask) for mask in masks]
    for _ in range(3):  # whole cells, so that nothing thin is lost: the box closes in on the hull
        x, half = _cells(low, high, COARSE)
        x = _carve(x, float(half.norm()), cameras, tables)
        if len(x) == 0:
            raise ValueError("the visual hull of the masks is empty: masks and cameras do not agree with each other")
        low, high = x.amin(0) - half, x.amax(0) + half
    x, half = _cells(low, high, FINE)
    inner = _carve(x, 0.0, cameras, tables)  # points: the hull without a rim of cells around it
    if len(inner) > 0:
        low, high = inner.amin(0) - half, inner.amax(0) + half
        x = inner
    centre = (low + high) / 2
    return centre, float(((x - centre).abs() + half).norm(dim=1).max())


def extent_from_axes(cameras: Sequence[Camera]) -> tuple[Tensor, float]:
    """Return the point (3,) where the optical axes meet, and the radius that fits into the median view."""
    centre, distance = meeting_point(cameras)
    radii = []
    for camera in cameras:
        uv, z = (a[0] for a in camera.project(centre[None]))
        size = torch.tensor([camera.width, camera.height]).to(uv)
        radii.append(float((torch.minimum(uv, size - uv) * camera.pixel_size(z)).min()))
    radius = float(torch.tensor(radii).median())
    return centre, min(radius, 0.5 * distance) if radius > 0 else 0.5 * distance


def meeting_point(cameras: Sequence[Camera]) -> tuple[Tensor, float]:
    """Return the point (3,) nearest to all optical axes, and its median distance from the cameras.

    Raises:
        ValueError: if the axes are parallel, or meet behind the cameras.
    """
    o = torch.stack([c.centre for c in cameras])
    d = torch.stack([c.pose[:3, 2] for c in cameras])
    across = torch.eye(3).to(d) - d[:, :, None] * d[:, None, :]
    total = across.sum(0)
    if torch.linalg.eigvalsh(total)[0] < 1e-6 * len(cameras):
        raise ValueError("the cameras look in parallel: there is no point that they have in common")
    point = torch.linalg.solve(total, (across @ o[..., None]).sum(0)[:, 0])
    depth = ((point - o) * d).sum(1)
    if (depth > 0).double().mean() < 0.5:
        raise ValueError("the optical axes meet behind the cameras: expected cameras that look at the object")
    return point, float((point - o).norm(dim=1).median())


def _cells(low: Tensor, high: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Return the middles (n, 3) of the cells of a box, and half the size of a cell (3,)."""
    half = (high - low) / (2 * n)
    index = torch.arange(n).to(low)
    steps = torch.cartesian_prod(index, index, index)
    return low + half * (2 * steps + 1), half


def _carve(x: Tensor, rho: float, cameras: Sequence[Camera], tables: Sequence[Tensor]) -> Tensor:
    """Return those of the balls of radius `rho` around `x` (n, 3) that no view sees in the background altogether."""
    views = torch.zeros(len(x))
    with one_thread():
        for camera, table in zip(cameras, tables, strict=True):
            visible, empty = _project_balls(x, rho, camera, table)
            x, views = x[~empty], (views + visible)[~empty]
    return x[views >= max(2, len(cameras) * SHARE)]


def _project_balls(x: Tensor, rho: float, camera: Camera, table: Tensor) -> tuple[Tensor, Tensor]:
    """Return which balls are in the image, at least in part (n,), and which lie in the background altogether (n,)."""
    _, R, t = camera.krt()
    local = x @ R.T + t
    z = local[:, 2]
    front = z > rho
    safe = torch.where(front[:, None], local, torch.tensor([0.0, 0.0, 1.0 + rho]).to(local))
    uv = camera.projection.local_project(camera.K, safe)
    radius = camera.projection.image_radius(camera.K, safe, rho)
    size = torch.tensor([camera.width, camera.height]).to(uv)
    first, last = (uv - radius[:, None]).floor(), (uv + radius[:, None]).floor() + 1
    visible = front & (last > 0).all(1) & (first < size).all(1)
    whole = front & (first >= 0).all(1) & (last <= size).all(1)
    (u0, v0), (u1, v1) = (torch.where(whole[:, None], a, 0.0).long().unbind(1) for a in (first, last))
    count = table[v1, u1] - table[v0, u1] - table[v1, u0] + table[v0, u0]
    return visible, whole & (count == 0)


def _summed(mask: Tensor) -> Tensor:
    """Return, for each corner of the pixels, how many pixels above and left of it show the object, (h + 1, w + 1)."""
    return torch.nn.functional.pad(mask.int().cumsum(0).cumsum(1), (1, 0, 1, 0))

"""Locate the object, from masks or from cameras alone, and move it into the unit sphere."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.transform import SceneTransform
from warpdvr.datasets.views import Views
from warpdvr.datasets.visual_hull import axes_equations, project_balls, summed_area
from warpdvr.runtime.threads import one_thread

RADIUS = 0.9
"""The object lies within this distance from the origin [scene unit]."""

NEAREST = 1e-30
"""Radii that are smaller, or larger than its inverse, come from damaged cameras [unit of the data]."""

SHARE = 2 / 3
"""The share of the views that must have a point in their image: near the cameras few do, and the hull frays."""

LARGEST = 2**20
"""The most pixels of a mask that is carved with: larger ones are shrunk."""

COARSE, FINE = 32, 48
"""Cells along each side of the carved box: while it closes in on the hull, and in the last pass."""


def normalise_views(views: Views, folder: Path) -> Views:
    """Return views in the data's own frame in the scene frame; the axes keep their directions.

    A single view is returned unchanged: it does not show where its object lies.

    The visual hull of the masks lies within `RADIUS` of the origin, to about 2 %: a cell of the carved grid. With fewer
    than two masks the object is assumed to lie where the optical axes meet, and to be as large as the longer
    sides of the images allow.

    Raises:
        ValueError: if the hull is empty, or the cameras do not look at a common point; the message names `folder`.
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
        if not NEAREST < radius < 1 / NEAREST:
            raise ValueError(f"the object would have a radius of {radius:.3g}; check the positions of the cameras")
        transform = SceneTransform.around(centre, radius / RADIUS)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    middle = ", ".join(f"{c:.4g}" for c in centre.tolist())
    unit = f"1 scene unit = {transform.scale:.4g} units of the data"
    summary = f"{views.summary} Scale from the {source}: centre ({middle}), {unit}."
    return replace(views, cameras=tuple(map(transform.to_scene, views.cameras)), transform=transform, summary=summary)


def extent_from_masks(
    cameras: Sequence[Camera], masks: Sequence[Bool[Tensor, "_ _"]]
) -> tuple[Float[Tensor, "3"], float]:
    """Return the centre and the radius of the visual hull.

    A point is outside the hull if a view sees background there. A view knows nothing about points outside its image,
    but only points in the images of at least two thirds of the views count.

    Raises:
        ValueError: if the hull is empty.
    """
    centre, distance = meeting_point(cameras)
    low, high = centre - distance, centre + distance
    cameras, masks = zip(*map(_shrunk, cameras, masks), strict=True)
    for _ in range(3):  # whole cells, so that nothing thin is lost: the box closes in on the hull
        x, half = _cells(low, high, COARSE)
        x = _carve(x, float(half.norm()), cameras, masks)
        if len(x) == 0:
            raise ValueError("the visual hull of the masks is empty: masks and cameras do not agree with each other")
        low, high = x.amin(0) - half, x.amax(0) + half
    x, half = _cells(low, high, FINE)
    inner = _carve(x, 0.0, cameras, masks)  # points: the hull without a rim of cells around it
    if len(inner) > 0:
        low, high = inner.amin(0) - half, inner.amax(0) + half
        x = inner
    centre = (low + high) / 2
    return centre, float(((x - centre).abs() + half).norm(dim=1).max())


def extent_from_axes(cameras: Sequence[Camera]) -> tuple[Float[Tensor, "3"], float]:
    """Return the point where the optical axes meet, and the radius that fills the median view along its longer side."""
    centre, distance = meeting_point(cameras)
    radii = []
    for camera in cameras:
        uv, z = (a[0] for a in camera.project(centre[None]))
        size = torch.tensor([camera.width, camera.height]).to(uv)
        radii.append(float((torch.minimum(uv, size - uv) * camera.pixel_size(z)).max()))
    radius = float(torch.tensor(radii).median())
    return centre, min(radius, 0.5 * distance) if radius > 0 else 0.5 * distance


def meeting_point(cameras: Sequence[Camera]) -> tuple[Float[Tensor, "3"], float]:
    """Return the point nearest to all optical axes, and its median distance from the cameras.

    Raises:
        ValueError: if the axes are parallel, or meet behind the cameras.
    """
    o = torch.stack([c.centre for c in cameras])
    d = torch.stack([c.pose[:3, 2] for c in cameras])
    total, right = axes_equations(o, d)
    if torch.linalg.eigvalsh(total)[0] < 1e-6 * len(cameras):
        raise ValueError("the cameras look in parallel: there is no point that they all look at")
    point = torch.linalg.solve(total, right)
    depth = ((point - o) * d).sum(1)
    if (depth > 0).double().mean() < 0.5:
        raise ValueError("the optical axes meet behind the cameras: expected cameras that look at the object")
    return point, float((point - o).norm(dim=1).median())


def _cells(
    low: Float[Tensor, "3"], high: Float[Tensor, "3"], per_side: int
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "3"]]:
    """Return the centres of the cells of a box, and half the size of a cell."""
    half = (high - low) / (2 * per_side)
    index = torch.arange(per_side).to(low)
    steps = torch.cartesian_prod(index, index, index)
    return low + half * (2 * steps + 1), half


def _carve(
    x: Float[Tensor, "n 3"], rho: float, cameras: Sequence[Camera], masks: Sequence[Bool[Tensor, "_ _"]]
) -> Float[Tensor, "k 3"]:
    """Return the centres of those balls of radius `rho` around `x` that no view sees entirely in the background."""
    views = torch.zeros(len(x))
    with one_thread():
        for camera, mask in zip(cameras, masks, strict=True):
            _, R, t = camera.krt()
            table = summed_area(mask)  # one at a time, for the memory
            visible, empty = project_balls(x @ R.T + t, rho, camera.projection, camera.K, table)
            x, views = x[~empty], (views + visible)[~empty]
    return x[views >= max(2, len(cameras) * SHARE)]


def _shrunk(camera: Camera, mask: Bool[Tensor, "h w"]) -> tuple[Camera, Bool[Tensor, "_ _"]]:
    """Return a camera and a mask of at most `LARGEST` pixels, True wherever any of the pixels was: nothing is lost."""
    factor = math.ceil(math.sqrt(mask.numel() / LARGEST))
    if factor == 1:
        return camera, mask
    bands = [
        torch.nn.functional.max_pool2d(rows[None].float(), factor, ceil_mode=True)[0] > 0
        for rows in mask.split(64 * factor)
    ]
    small = torch.cat(bands)
    height, width = small.shape
    whole = replace(camera, width=factor * width, height=factor * height)  # the last row and column may reach beyond
    return whole.resized(width, height), small

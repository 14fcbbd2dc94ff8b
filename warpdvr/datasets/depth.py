"""Depth that comes with photographs: bring maps and sparse points to the scene unit, and check what unit they are in.

Depth is z-depth everywhere: the distance along the camera's forward axis, as in the perspective formula
z (u, v, 1) = K (R x + t), and not the length of the ray. Zeros, negatives, NaN and infinities mean "missing"; they all
become NaN in `Views.depths`.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.datasets import files
from warpdvr.datasets.depthfile import DepthMap
from warpdvr.datasets.views import SparseDepth, Views
from warpdvr.runtime.files import within

FACTORS = (1e-3, 1e-2, 0.1, 10.0, 100.0, 1000.0)
"""Units that depth is confused with, as factors."""

AGREES = 0.5
"""The least share of the depth that lies inside of the other views' masks. On renders at 40 degrees right depth has
0.98 (0.88 with 2 % of noise), depth that is wrong by a factor of 2 has 0.05; by 1.2 it has 0.6 to 0.7, and passes."""

NEAR, CONTRADICTION = 0.01, 0.03
"""Ray lengths taken for z-depth: points that hang in front of what another view sees by more than 1 % of its depth.
On renders at 40 degrees right depth has 0.5 to 1.2 % of them, and ray lengths read as z-depth have 6 to 10 %."""


def attached(
    views: Views, maps: Sequence[DepthMap | None], depth_scale: float = 1.0, *, factors: Sequence[float] | None = None
) -> Views:
    """Return `views` with depth, in the scene unit, if there is a map at all.

    Args:
        views: in the scene frame; `views.transform` says how long the data's unit is.
        maps: per view.
        depth_scale: factor from the maps' unit to the data's.
        factors: per view, a further factor; 1 by default.

    Raises:
        ValueError: if a map has not the size of its image, or the depth contradicts the masks; see `agreement`.
    """
    paths = list(dict.fromkeys(stored.file for stored in maps if stored is not None))
    if not paths:
        return views
    units = [depth_scale * f / views.transform.scale for f in (factors or [1.0] * len(maps))]
    depths = tuple(
        None if stored is None else _cleaned(stored, unit, image)
        for stored, unit, image in zip(maps, units, views.images, strict=True)
    )
    views = replace(views, depths=depths)
    source = " and ".join(f.name for f in paths) if len(paths) <= 2 else f"{paths[0].parent.name}/"
    return replace(views, found=f"{views.found} {_words(views, source, _checked(views, paths[0], depth_scale))}")


def with_points(views: Views, points: np.ndarray, visible: np.ndarray, path: Path) -> Views:
    """Return `views` with the sparse points that each of them sees; those outside of the image are left out.

    Args:
        views: in the scene frame.
        points: shape (m, 3), in the data's own frame [unit of the data].
        visible: shape (v, m), bool: which view sees which point, in the order of the views.
        path: where both are from, for messages.
    """
    if points.ndim != 2 or points.shape[1] != 3 or points.dtype.kind not in "fiu":
        raise ValueError(f"{path}: expected `points` to be numbers (m, 3), found {points.dtype} {points.shape}")
    if visible.shape != (len(views), len(points)) or visible.dtype.kind != "b":
        raise ValueError(
            f"{path}: expected `visible` to be bool ({len(views)}, {len(points)}), a row per view and a column per "
            f"point, found {visible.dtype} {visible.shape}"
        )
    x = views.transform.inverse().apply(torch.from_numpy(points.astype(np.float64)))
    sparse = tuple(_seen(c, x[torch.from_numpy(row)]) for c, row in zip(views.cameras, visible, strict=True))
    mean = sum(map(len, sparse)) / len(sparse)
    found = f"{views.found} {len(points)} sparse points from {path.name}, {mean:.0f} per view."
    return replace(views, points=sparse, found=found)


def points_of(folder: Path, views: Views) -> Views:
    """Return `views` with the sparse points of `folder`/points.npz (arrays `points` and `visible`), if it is there."""
    path = within(folder, "points.npz")
    if not path.is_file():
        return views
    arrays = files.arrays(path, "points|visible")
    if arrays.keys() != {"points", "visible"}:
        raise ValueError(f"{path}: expected arrays `points` (m, 3) and `visible` (v, m), found {sorted(arrays)}")
    return with_points(views, arrays["points"], arrays["visible"], path)


def agreement(views: Views, factor: float = 1.0, *, ray: bool = False) -> tuple[float, float]:
    """Return how well the depth agrees with the other views, from some thousand pixels on the object.

    Args:
        factor: multiplies the depth.
        ray: take it for the length of rays.

    Returns:
        inside: the share of the back-projected points, each seen from the other views with masks, that lie in front of
            the camera and inside of the mask. What lies outside of an image counts where the mask stays clear of the
            border, and is unknown otherwise. NaN if nothing can be said.
        before: the share of the points inside that hang in front of the depth the other view sees there. Opaque
            objects allow of none but for noise.
    """
    usable = [i for i, (m, d) in enumerate(zip(views.masks, views.depths, strict=True)) if m is not None is not d]
    others = _spread([i for i, m in enumerate(views.masks) if m is not None], 16)
    inside = known = before = seen = 0
    for i in _spread(usable, 8):
        x = _sample(views, i, factor, ray)
        for j in others:
            if i != j:
                counts = _look(views, j, x, factor, ray)
                inside, known, before, seen = (
                    a + b for a, b in zip((inside, known, before, seen), counts, strict=True)
                )
    return inside / known if known else np.nan, before / seen if seen else np.nan


def _checked(views: Views, path: Path, depth_scale: float) -> float:
    """Return the share that `agreement` finds inside; refuse depth in another unit, and ray lengths."""
    inside, before = agreement(views)
    if inside < AGREES:
        shares = {factor: float(np.nan_to_num(agreement(views, factor)[0])) for factor in FACTORS}
        best = max(shares, key=lambda factor: shares[factor])
        advice = (
            f"in {best:g} times its unit it would be {_percent(shares[best])}: pass depth_scale={depth_scale * best:g}"
            if shares[best] >= AGREES
            else "no power of ten as a factor would help: check that it is z-depth [unit of the data] of these cameras"
        )
        raise ValueError(
            f"{path}: only {_percent(inside)} of the depth lies on the object as the masks of the other views show it; "
            f"{advice}"
        )
    if before > CONTRADICTION and agreement(views, ray=True)[1] < before / 3:
        raise ValueError(
            f"{path}: {_percent(before)} of the depth hangs in front of what other views see, but hardly any would if "
            "it were ray length instead of z-depth; multiply it by the cosine of the angle between ray and optical axis"
        )
    return inside


def _words(views: Views, source: str, inside: float) -> str:
    """Return in words what depth there is."""
    known = [(d, m) for d, m in zip(views.depths, views.masks, strict=True) if d is not None]
    masked = all(m is not None for _, m in known)
    missing = [(d.isnan() if m is None else d.isnan()[m]).float().mean().item() for d, m in known]
    share = f"missing on {_percent(sum(missing) / len(missing))} of the {'object' if masked else 'pixels'}"
    agrees = "" if np.isnan(inside) else f"; {_percent(inside)} of it lies inside of the other views' masks"
    return f"Depth from {source} for {len(known)} of {len(views)} views, {share}{agrees}."


def _cleaned(stored: DepthMap, unit: float, image: Tensor) -> Tensor:
    """Return depth (h, w) [scene unit], NaN where it is missing."""
    if stored.depth.shape != image.shape[:2]:
        sizes = "map of {1} x {0}, image of {3} x {2}".format(*stored.depth.shape, *image.shape)
        raise ValueError(f"{stored.file}: the depth map must have the size of its image, found a {sizes} pixels")
    depth = stored.depth * unit
    return depth.masked_fill_(~((depth > 0) & depth.isfinite()), torch.nan)


def _seen(camera: Camera, x: Tensor) -> SparseDepth:
    """Return the depth of those points (n, 3) [scene unit] that are in front of the camera and in its image."""
    pixel, z = camera.project(x)
    inside = (z > 0) & pixel.isfinite().all(1) & _within(camera, pixel)
    return SparseDepth(pixel[inside].float(), z[inside].float())


def _sample(views: Views, i: int, factor: float, ray: bool, n: int = 400) -> Tensor:
    """Return points (n, 3) [scene unit] of view i's depth on the object, evenly chosen."""
    camera, depth, mask = views.cameras[i], views.depths[i], views.masks[i]
    if depth is None or mask is None:
        return torch.empty(0, 3, dtype=torch.float64)
    index = (mask & ~depth.isnan()).nonzero()
    index = index[_spread(list(range(len(index))), n)]
    v, u = index.unbind(1)
    slope = _slope(camera, index)
    z = factor * depth[v, u].double() / (slope.norm(dim=1) if ray else 1)
    return slope * z[:, None] @ camera.pose[:3, :3].T + camera.centre


def _look(views: Views, j: int, x: Tensor, factor: float, ray: bool) -> tuple[int, int, int, int]:
    """Return the four counts of `agreement` for points (n, 3) seen from view j."""
    camera, depth, mask = views.cameras[j], views.depths[j], views.masks[j]
    if mask is None:
        return 0, 0, 0, 0
    pixel, z = camera.project(x)
    imaged = (z > 0) & _within(camera, pixel)
    border = torch.cat([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    known = imaged | (z <= 0) | ~border.any()
    u, v = pixel[imaged].long().unbind(1)
    on = mask[v, u]
    n_inside, n_known = int(on.sum()), int(known.sum())
    if depth is None:
        return n_inside, n_known, 0, 0
    index = torch.stack([v, u], 1)[on]
    there = factor * depth[index[:, 0], index[:, 1]].double()
    if ray:
        there = there / _slope(camera, index).norm(dim=1)
    before = z[imaged][on] < (1 - NEAR) * there  # False where it is missing
    return n_inside, n_known, int(before.sum()), int((~there.isnan()).sum())


def _slope(camera: Camera, index: Tensor) -> Tensor:
    """Return x / z (n, 3), in camera axes, of what is seen at pixels (row, column) (n, 2)."""
    centres = index.flip(1).to(camera.K) + 0.5
    slope: Tensor = torch.cat([centres, torch.ones_like(centres[:, :1])], 1) @ torch.linalg.inv(camera.K).T
    return slope


def _within(camera: Camera, pixel: Tensor) -> Tensor:
    size = torch.tensor([camera.width, camera.height])
    inside: Tensor = ((pixel >= 0) & (pixel < size.to(pixel))).all(1)
    return inside


def _spread(items: list[int], n: int) -> list[int]:
    """Return at most n of the items, evenly chosen."""
    return [items[k * len(items) // n] for k in range(n)] if len(items) > n else items


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"

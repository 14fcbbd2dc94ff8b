"""Attach the depth that comes with photographs: convert maps and sparse points to the scene unit.

Depth is z-depth everywhere: the distance along the camera's forward axis, as in the perspective formula
z (u, v, 1) = K (R x + t), and not the length of the ray. Zeros, negatives, NaN and infinities mean "missing"; they all
become NaN in `Views.depths`.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.datasets.depthcheck import as_percent, check_depth, in_image
from warpdvr.datasets.depthfile import DepthMap
from warpdvr.datasets.files import read_arrays
from warpdvr.datasets.views import SparseDepth, Views
from warpdvr.runtime.files import path_inside


def attach_depth(
    views: Views, maps: Sequence[DepthMap | None], depth_scale: float = 1.0, *, factors: Sequence[float] | None = None
) -> Views:
    """Return `views` with depth in the scene unit; without any map, return `views` unchanged.

    Args:
        views: in the scene frame; `views.transform` holds the length of the data's unit.
        maps: the stored map of each view, None where there is none.
        depth_scale: factor from the maps' unit to the data's.
        factors: a further factor for each view; 1 by default.

    Raises:
        ValueError: if the size of a map differs from that of its image, or the depth contradicts the masks; see
            `check_depth`.
    """
    paths = list(dict.fromkeys(stored.path for stored in maps if stored is not None))
    if not paths:
        return views
    units = [depth_scale * f / views.transform.scale for f in (factors or [1.0] * len(maps))]
    sizes = views.stored_sizes or [(c.width, c.height) for c in views.cameras]
    depths = tuple(
        None if stored is None else _to_scene_unit(stored, unit, image, size)
        for stored, unit, image, size in zip(maps, units, views.images, sizes, strict=True)
    )
    views = replace(views, depths=depths)
    source = " and ".join(f.name for f in paths) if len(paths) <= 2 else f"{paths[0].parent.name}/"
    inside = check_depth(views, paths[0], depth_scale)
    return replace(views, summary=f"{views.summary} {_describe_depth(views, source, inside)}")


def attach_points(views: Views, points: np.ndarray, visible: np.ndarray, path: Path) -> Views:
    """Return `views` with the sparse points that each of them sees; points outside its image are left out.

    Args:
        views: in the scene frame.
        points: positions in the data's own frame, shape (m, 3) [unit of the data].
        visible: which view sees which point, in the order of the camera files, shape (v, m), bool.
        path: the file that both come from, for messages.

    Raises:
        ValueError: if an array has another shape or type.
    """
    if points.ndim != 2 or points.shape[1] != 3 or points.dtype.kind not in "fiu":
        raise ValueError(f"{path}: expected `points` to be numbers (m, 3), found {points.dtype} {points.shape}")
    if views.listed and visible.ndim == 2 and len(visible) > max(views.listed):
        visible = visible[list(views.listed)]
    if visible.shape != (len(views), len(points)) or visible.dtype.kind != "b":
        raise ValueError(
            f"{path}: expected `visible` to be bool ({len(views)}, {len(points)}), a row per view and a column per "
            f"point, found {visible.dtype} {visible.shape}"
        )
    x = views.transform.inverse().apply(torch.from_numpy(points.astype(np.float64)))
    sparse = tuple(_project_points(c, x[torch.from_numpy(row)]) for c, row in zip(views.cameras, visible, strict=True))
    mean = sum(map(len, sparse)) / len(sparse)
    summary = f"{views.summary} {len(points)} sparse points from {path.name}, {mean:.0f} per view."
    return replace(views, points=sparse, summary=summary)


def attach_cloud(views: Views, points: Float[Tensor, "m 3"], source: str) -> Views:
    """Return `views` with points of which nothing says who sees them; those that are not finite are left out.

    Args:
        views: in the scene frame.
        points: positions in the data's own frame [unit of the data].
        source: the file that names them, for the summary.
    """
    points = points[points.isfinite().all(1)].double()
    words = f"{len(points)} points named by {source} come without the views that see them, nothing is learnt from them."
    return replace(views, cloud=views.transform.inverse().apply(points), summary=f"{views.summary} {words}")


def attach_points_file(folder: Path, views: Views) -> Views:
    """Return `views` with the sparse points of `folder`/points.npz (arrays `points` and `visible`), if it exists."""
    path = path_inside(folder, "points.npz")
    if not path.is_file():
        return views
    arrays = read_arrays(path, "points|visible")
    if arrays.keys() != {"points", "visible"}:
        raise ValueError(f"{path}: expected arrays `points` (m, 3) and `visible` (v, m), found {sorted(arrays)}")
    return attach_points(views, arrays["points"], arrays["visible"], path)


def _describe_depth(views: Views, source: str, inside: float) -> str:
    """Describe how much depth there is, and which share of it lies inside the other views' masks."""
    maps = [(d, m) for d, m in zip(views.depths, views.masks, strict=True) if d is not None]
    region = "object" if all(mask is not None for _, mask in maps) else "pixels"
    missing = [(d.isnan() if m is None else d.isnan()[m]).float().mean().item() for d, m in maps]
    share = f"missing on {as_percent(sum(missing) / len(missing))} of the {region}"
    agreement = "" if np.isnan(inside) else f"; {as_percent(inside)} of it lies inside of the other views' masks"
    return f"Depth from {source} for {len(maps)} of {len(views)} views, {share}{agreement}."


def _to_scene_unit(
    stored: DepthMap, unit: float, image: UInt8[Tensor, "h w 3"], size: tuple[int, int]
) -> Float[Tensor, "h w"]:
    """Return the depth [scene unit], NaN where it is missing, of the pixels of an image that may be scaled down.

    The map must have the size (w, h) of the stored picture. Each pixel has the depth at its centre: means would lie
    between surfaces.
    """
    if stored.depth.shape != size[::-1]:
        sizes = "map of {1} x {0}, image of {2} x {3}".format(*stored.depth.shape, *size)
        raise ValueError(f"{stored.path}: the depth map must have the size of its image, found a {sizes} pixels")
    centres = (((torch.arange(n) + 0.5) * m / n).long() for n, m in zip(image.shape[:2], size[::-1], strict=True))
    depth = stored.depth
    if image.shape[:2] != depth.shape:
        depth = depth[torch.meshgrid(*centres, indexing="ij")]
    depth = depth * unit
    return depth.masked_fill_(~((depth > 0) & depth.isfinite()), torch.nan)


def _project_points(camera: Camera, x: Float[Tensor, "n 3"]) -> SparseDepth:
    """Return the depth of those points [scene unit] that lie in front of the camera and in its image."""
    pixel, z = camera.project(x)
    visible = (z > 0) & pixel.isfinite().all(1) & in_image(camera, pixel)
    return SparseDepth(pixel[visible].float(), z[visible].float())

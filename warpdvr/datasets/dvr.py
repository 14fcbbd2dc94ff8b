"""Read and write data in DVR's format: `cameras.npz` with camera_mat beside `image/`, `mask/` and `depth/`.

Conventions as in autonomousvision/differentiable_volumetric_rendering (im2mesh/common.py, im2mesh/data/fields.py),
Niemeyer et al., "Differentiable Volumetric Rendering", CVPR 2020: with x a point of the scene,

    z (u, v, 1) = camera_mat world_mat scale_mat x,    world_mat = [R | t], world to camera, x right, y down, z forward.

u and v lie in [-1, 1]. DVR's rays take -1 and 1 for the centres of the first and the last pixel (arange_pixels:
u = 2 i / (w - 1) - 1), and so does this module: column = (u + 1) (w - 1) / 2 + 0.5 with pixel centres at +0.5. Data
rendered with -1 and 1 at the edges of the image are therefore up to half a pixel off at its border, in DVR as here.
Depth is the z of this formula: z-depth in units of the data, as `depthfile.read_depth_map` reads it. `pcl.npz` holds
points of structure from motion: `points` (m, 3) [unit of the data], `visibility_0000`, ... and `is_in_visual_hull`
(m,). `visual_hull_depth/` is not read. DTU data as DVR packages them have K in world_mat: that is IDR's format.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.projection import Pinhole
from warpdvr.cameras.transform import SceneTransform
from warpdvr.datasets import matrices
from warpdvr.datasets.camera_numbers import require_pinhole, sort_by_name
from warpdvr.datasets.depth import attach_points
from warpdvr.datasets.entries import Listing, NamedCamera
from warpdvr.datasets.files import (
    error_prefix,
    find_subfolder,
    list_pictures,
    npz_bytes,
    read_arrays,
    require_view_count,
)
from warpdvr.datasets.formats import Detection, ReadOptions
from warpdvr.datasets.gather import gather
from warpdvr.datasets.masks import match_masks
from warpdvr.datasets.normalise import extent_from_axes
from warpdvr.datasets.views import Views
from warpdvr.runtime.files import path_inside


class DVR(matrices.MatrixFormat):
    """`cameras.npz` with world_mat = [R | t] and a camera_mat into [-1, 1]; pictures and cameras pair up by order."""

    title = "DVR"
    pattern = "cameras.npz"

    def recognises(self, path: Path) -> bool:
        """Return whether world_mat is [R | t], and camera_mat leads into [-1, 1].

        IDR's files have K [R | t] in pixels in world_mat, and may have a camera_mat too.
        """
        try:
            arrays = read_arrays(path_inside(path.parent, path.name), r"(world|camera)_mat_\d+")
            n = matrices.count_cameras(arrays)
            views = (matrices.get_view(path, arrays, [f"world_mat_{i}", f"camera_mat_{i}"]) for i in range(n))
            world, camera = next((found for found, broken in views if not broken), (None, None))
        except ValueError:  # the next format that is tried reports what is wrong
            return False
        if world is None or camera is None:
            return False
        return matrices.is_scaled_rotation(world[:3, :3]) and bool((camera[:2, 2].abs() < 2).all())

    def read(self, data: Detection, options: ReadOptions) -> Views:
        """Return the data set in the scene frame that scale_mat leads from.

        If that is the identity and the cameras do not look at the unit sphere, the object is moved there.
        """
        path = data.choose()
        transform, projections, factors, broken = _matrices(path, options.min_views)
        pictures = matrices.find_pictures(data.folder, path, len(projections))
        masks, source = _masks(data.folder, pictures)
        listing = Listing(
            tuple(
                matrices.entry(data.folder, picture, partial(_camera, path, i, P), mask, i, broken.get(i))
                for i, (P, picture, mask) in enumerate(zip(projections, pictures, masks, strict=True))
            ),
            camera_file=path.name,
            conventions="camera_mat [R | t], -1 and 1 at the centres of the first and the last pixel",
            mask_source=source,
        )
        capture = gather(data, listing, options)
        capture = replace(
            capture,
            transform=transform,
            transform_source="scale_mat" if _is_scene_frame(transform, capture.cameras) else None,
            depth_factors=factors,
        )
        return _attach_cloud(data.folder, capture.views(data, options))

    def write_cameras(self, data: Detection, cameras: Sequence[Camera]) -> dict[str, bytes]:
        """Return the camera file with new world_mat and their inverses; all other arrays are kept.

        world_mat becomes [R | t] without a factor, even if it had one.
        """
        path = data.choose()
        arrays = read_arrays(path)
        spread = data.spread(cameras, matrices.count_cameras(arrays))
        new_world = [None if camera is None else _world_matrix(camera) for camera in spread]
        return {path.name: matrices.replace_world_matrices(path, arrays, new_world)}

    def export(self, cameras: Sequence[NamedCamera], transform: SceneTransform) -> dict[str, bytes]:
        """Return `cameras.npz`, in the order of the pictures' names."""
        arrays: dict[str, np.ndarray] = {}
        for i, named in enumerate(sort_by_name(cameras)):
            require_pinhole(named, self.title)
            arrays |= _named_matrices(i, named.camera, transform)
        return {"cameras.npz": npz_bytes(arrays)}


def write(folder: Path, views: Views) -> None:
    """Write `views` to a folder without such data; reading it gives the same cameras, images and masks.

    Pictures are called 0000.png, 0001.png, ... in the order of the views; their names, the split and sparse points are
    not kept. Depth is float32 [unit of the data], 0 where it is missing.

    Raises:
        ValueError: if the folder already holds pictures, depth maps or cameras.
    """
    for name in ("image", "mask", "depth", "cameras.npz"):
        if (folder / name).exists():
            raise ValueError(f"{folder / name}: expected a folder without data, but this exists; write to a new folder")
    for name, camera in zip(views.names, views.cameras, strict=True):
        if not isinstance(camera.projection, Pinhole):
            raise ValueError(
                f"{folder}: DVR's files hold pinholes only, the camera of {name} is {camera.projection.name}"
            )
    (folder / "image").mkdir(parents=True)
    for i, (image, mask) in enumerate(zip(views.images, views.masks, strict=True)):
        Image.fromarray(image.cpu().numpy()).save(folder / f"image/{i:04d}.png")
        if mask is not None:
            (folder / "mask").mkdir(exist_ok=True)
            Image.fromarray(mask.cpu().numpy().astype(np.uint8) * 255).save(folder / f"mask/{i:04d}.png")
    for i, depth in enumerate(views.depths):
        if depth is not None:
            (folder / "depth").mkdir(exist_ok=True)
            stored = (depth * views.transform.scale).nan_to_num(nan=0.0).cpu().numpy().astype(np.float32)
            np.save(folder / f"depth/{i:04d}.npy", stored, allow_pickle=False)
    arrays: dict[str, np.ndarray] = {}
    for i, camera in enumerate(views.cameras):
        arrays |= _named_matrices(i, views.transform.to_data(camera), views.transform)
    (folder / "cameras.npz").write_bytes(npz_bytes(arrays))


def _matrices(path: Path, min_views: int) -> tuple[SceneTransform, list[Tensor], list[float], dict[int, str]]:
    """Return scale_mat; per view camera_mat world_mat scale_mat (4, 4) and the factor of its depth; and what is wrong.

    The factor converts the depth to the unit of the data; it is not 1 if world_mat has a scale. A view whose matrices
    are not finite is named with the reason, by its number.
    """
    arrays = read_arrays(path, r"(world|camera|scale)_mat_\d+")
    n = matrices.count_cameras(arrays)
    require_view_count(path, n, min_views)
    eye = torch.eye(4, dtype=torch.float64)
    first: Tensor | None = None
    projections, factors, broken = [], [], dict[int, str]()
    for i in range(n):
        keys = [f"{kind}_mat_{i}" for kind in ("camera", "world", "scale")]
        (camera, world, *scales), wrong = matrices.get_view(path, arrays, keys if keys[2] in arrays else keys[:2])
        scale = scales[0] if scales else eye
        if wrong:
            broken[i] = wrong
        else:
            first = scale if first is None else first
            matrices.require_equal_scales(path, i, scale, first)
            _require_pose(path, i, camera, world)
        projections.append(camera @ world @ scale)
        factors.append(1 / float((camera @ world)[2, :3].norm()))
    return matrices.scene_transform(path, eye if first is None else first), projections, factors, broken


def _require_pose(path: Path, i: int, camera: Float[Tensor, "4 4"], world: Float[Tensor, "4 4"]) -> None:
    """Raise ValueError if world_mat is not [R | t], or is one of a mirror image together with camera_mat."""
    if not matrices.is_scaled_rotation(world[:3, :3]):
        raise ValueError(f"{path}: world_mat_{i} is not [R | t], expected a rotation as in world_mat_0")
    if not torch.linalg.det((camera @ world)[:3, :3]) > 0:
        raise ValueError(
            f"{path}: camera_mat_{i} and world_mat_{i} make a mirror image, expected x right, y down, z forward"
        )


def _world_matrix(camera: Camera) -> Float[Tensor, "3 4"]:
    """Return [R | t]."""
    _, R, t = camera.krt()
    return torch.cat([R, t[:, None]], 1)


def _camera(path: Path, i: int, projection: Float[Tensor, "4 4"], width: int, height: int) -> Camera:
    with error_prefix(f"{path}: camera_mat_{i} world_mat_{i}"):
        return Camera.from_projection(_to_pixels(width, height) @ projection[:3], width, height)


def _masks(folder: Path, pictures: list[Path]) -> tuple[list[Path | None], str]:
    """Return the masks in the folder, by order, or by name if there are fewer than images, and where they are."""
    subfolder = find_subfolder(folder, "mask", "masks")
    if subfolder is None:
        return [None] * len(pictures), "nowhere"
    paths: list[Path | None] = [*list_pictures(subfolder, folder)]
    if len(paths) != len(pictures):
        paths = match_masks(pictures, subfolder, folder)
    return paths, f"{subfolder.name}/ (white = object)"


def _is_scene_frame(transform: SceneTransform, cameras: tuple[Camera, ...]) -> bool:
    """Return whether the object lies in the unit sphere: because scale_mat says so, or the cameras look there."""
    if not torch.allclose(transform.matrix, torch.eye(4).to(transform.matrix)):
        return True
    try:
        centre, radius = extent_from_axes(cameras)
    except ValueError:  # parallel cameras: no evidence against it
        return True
    return float(centre.norm()) < 1 and 0.1 < radius < 10


def _attach_cloud(folder: Path, views: Views) -> Views:
    """Return `views` with the sparse points of `pcl.npz` that lie in the visual hull, if the file exists."""
    path = path_inside(folder, "pcl.npz")
    if not path.is_file():
        return views
    arrays = read_arrays(path, r"points|is_in_visual_hull|visibility_\d+")
    points = arrays.get("points", np.empty((0, 3)))
    visible = np.zeros((len(views), len(points)), dtype=bool)
    for i, row in zip(views.listed or range(len(views)), visible, strict=True):
        indices = arrays.get(f"visibility_{i:04d}")
        if indices is None or indices.dtype.kind not in "biu":
            description = "none" if indices is None else f"{indices.dtype} {indices.shape}"
            raise ValueError(f"{path}: expected visibility_{i:04d}, a mask or indices of points, found {description}")
        try:
            row[indices] = True
            row &= arrays.get("is_in_visual_hull", np.bool_(True)).astype(bool)
        except (IndexError, ValueError) as error:
            raise ValueError(
                f"{path}: visibility_{i:04d} or is_in_visual_hull does not fit `points` ({error})"
            ) from error
    return attach_points(views, points, visible, path)


def _named_matrices(i: int, camera: Camera, transform: SceneTransform) -> dict[str, np.ndarray]:
    """Return camera_mat, world_mat and scale_mat, float64, of the i-th camera, in the data's own frame."""
    _, R, t = camera.krt()
    K, world = torch.eye(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64)
    K[:3, :3] = torch.linalg.inv(_to_pixels(camera.width, camera.height)) @ camera.K.detach().cpu().double()
    world[:3] = torch.cat([R, t[:, None]], 1).detach().cpu()
    named = zip(("camera", "world", "scale"), (K, world, transform.matrix), strict=True)
    return {f"{kind}_mat_{i}": matrix.detach().cpu().numpy() for kind, matrix in named}


def _to_pixels(width: int, height: int) -> Float[Tensor, "3 3"]:
    """Return the matrix from DVR's [-1, 1] to pixels with centres at +0.5."""
    if min(width, height) < 2:
        raise ValueError(f"expected images of at least 2 x 2 pixels, found {width} x {height}")
    x, y = (width - 1) / 2, (height - 1) / 2
    return torch.tensor([[x, 0, x + 0.5], [0, y, y + 0.5], [0, 0, 1]], dtype=torch.float64)

"""Read IDR / NeuS data, and write its cameras: `cameras*.npz` beside `image/` and `mask/`.

Conventions as in lioryariv/idr (code/datasets/scene_dataset.py, code/utils/rend_util.py): world_mat = K [R | t], world
to camera, OpenCV axes; scale_mat takes the unit sphere to the world; pixel centres at integers.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.transform import SceneTransform
from warpdvr.datasets import matrices
from warpdvr.datasets.camera_numbers import require_pinhole, sort_by_name
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
from warpdvr.datasets.images import picture_size
from warpdvr.datasets.views import Views

PREFERRED = ("cameras_sphere.npz", "cameras.npz")
"""The camera files to prefer if there are several."""

RATIOS = (2.0, 4.0, 8.0, 0.5, 0.25, 0.125, 3.0, 1 / 3, 1.5, 2 / 3)
"""Candidate sizes of the images that the matrices are for, relative to the images in the folder."""


class IDR(matrices.MatrixFormat):
    """`cameras*.npz` with world_mat = K [R | t] and perhaps scale_mat; pictures, masks and cameras pair up by order.

    Depth maps in `depth/` are z-depth in units of the data, as `depthfile.read_depth_map` reads them.
    """

    title = "IDR / NeuS"
    pattern = "cameras*.npz"

    def read(self, data: Detection, options: ReadOptions) -> Views:
        """Return the data set in the scene frame that scale_mat leads from, or that the object defines without one."""
        path = data.choose(*PREFERRED)
        world, transform, broken = _matrices(path, options.min_views)
        frame = SceneTransform.identity() if transform is None else transform
        pictures = matrices.find_pictures(data.folder, path, len(world))
        masks, source = _masks(data.folder, len(world))
        ratio = _size_ratio(*_sized([None if i in broken else P for i, P in enumerate(world)], pictures))
        listing = Listing(
            tuple(
                matrices.entry(
                    data.folder, picture, partial(_camera, path, i, P @ frame.matrix, ratio), mask, i, broken.get(i)
                )
                for i, (P, picture, mask) in enumerate(zip(world, pictures, masks, strict=True))
            ),
            camera_file=path.name,
            conventions="world_mat = K [R | t], pixel centres at integers (half a pixel added)" + _describe(ratio),
            mask_source=source,
        )
        capture = gather(data, listing, options)
        source_of_frame = None if transform is None else "scale_mat"
        return replace(capture, transform=frame, transform_source=source_of_frame).views(data, options)

    def write_cameras(self, data: Detection, cameras: Sequence[Camera]) -> dict[str, bytes]:
        """Return the camera file with new world_mat and their inverses; all other arrays are kept.

        The new matrices are for images of the same size as the old ones.
        """
        path = data.choose(*PREFERRED)
        arrays = read_arrays(path)
        n = matrices.count_cameras(arrays)
        spread = data.spread(cameras, n)
        world = [matrices.get_matrix(path, arrays, f"world_mat_{i}") for i, c in enumerate(spread) if c is not None]
        from_image = torch.linalg.inv(_to_image(_size_ratio(world, [(c.width, c.height) for c in cameras])))
        new_world = [None if camera is None else from_image @ camera.matrix().double() for camera in spread]
        return {path.name: matrices.replace_world_matrices(path, arrays, new_world)}

    def export(self, cameras: Sequence[NamedCamera], transform: SceneTransform) -> dict[str, bytes]:
        """Return `cameras_sphere.npz`, for pictures of the cameras' size, in the order of their names."""
        from_image = torch.linalg.inv(_to_image(1.0))
        arrays: dict[str, np.ndarray] = {}
        for i, named in enumerate(sort_by_name(cameras)):
            require_pinhole(named, self.title)
            world = torch.eye(4, dtype=torch.float64)
            world[:3] = from_image @ named.camera.matrix().detach().cpu().double()
            arrays |= {f"world_mat_{i}": world.numpy(), f"scale_mat_{i}": transform.matrix.detach().cpu().numpy()}
        return {"cameras_sphere.npz": npz_bytes(arrays)}


def _matrices(path: Path, min_views: int) -> tuple[list[Tensor], SceneTransform | None, dict[int, str]]:
    """Return world_mat of each view, (4, 4) float64; the scale_mat of all, None without any; and what is wrong.

    A view whose matrices are not finite is named with the reason, by its number.
    """
    arrays = read_arrays(path, r"(world|scale)_mat_\d+")
    n = matrices.count_cameras(arrays)
    if n == 0:
        raise ValueError(f"{path}: expected matrices world_mat_0, world_mat_1, ..., found none")
    scaled = any(key.startswith("scale_mat_") for key in arrays)  # all of them or none
    kinds = ("world", "scale") if scaled else ("world",)
    views = [matrices.get_view(path, arrays, [f"{kind}_mat_{i}" for kind in kinds]) for i in range(n)]
    require_view_count(path, n, min_views)
    broken = {i: reason for i, (_, reason) in enumerate(views) if reason}
    world = [found[0] for found, _ in views]
    scale = {i: found[-1] for i, (found, _) in enumerate(views) if scaled and i not in broken}
    for i, matrix in enumerate(world):
        if i not in broken:
            _require_intrinsics(path, i, matrix[:3, :3])
    first = next(iter(scale.values()), None)
    for i, matrix in scale.items():
        matrices.require_equal_scales(path, i, matrix, scale[min(scale)])
    return world, None if first is None else matrices.scene_transform(path, first), broken


def _require_intrinsics(path: Path, i: int, matrix: Float[Tensor, "3 3"]) -> None:
    """Raise ValueError if world_mat is [R | t], a rotation up to scale, so that it lacks the focal lengths.

    The presence of camera_mat does not decide this: IDR's files may have it too, with another meaning.
    """
    if matrices.is_scaled_rotation(matrix):
        raise ValueError(
            f"{path}: world_mat_{i} is [R | t] without K, expected K [R | t] in pixels as in IDR's files, or a "
            "camera_mat into [-1, 1] in addition as in DVR's; multiply world_mat by K from the left"
        )


def _masks(folder: Path, n: int) -> tuple[list[Path | None], str]:
    """Return the masks in the folder, by order, and where they are."""
    subfolder = find_subfolder(folder, "mask", "masks")
    if subfolder is None:
        return [None] * n, "nowhere"
    found = list_pictures(subfolder, folder)
    paths = matrices.fill_gaps(found, n)
    if paths is None:
        raise ValueError(f"{subfolder}: expected {n} masks, one per image, found {len(found)}")
    return [*paths], f"{subfolder.name}/ (white = object)"


def _sized(world: Sequence[Tensor | None], pictures: list[Path]) -> tuple[list[Tensor], list[tuple[int, int]]]:
    """Return the matrices and the sizes of those pictures that have a matrix and tell their size."""
    known = [(P, picture_size(path)) for P, path in zip(world, pictures, strict=True) if P is not None]
    pairs = [(P, size) for P, size in known if size]
    return [P for P, _ in pairs], [size for _, size in pairs]


def _size_ratio(world: list[Tensor], sizes: list[tuple[int, int]]) -> float:
    """Return the size of the images that the matrices are for, relative to the images in the folder (w, h).

    The principal point decides: it is near the centre of a photograph. The ratio is 1 unless the principal point fits
    another ratio clearly better.
    """
    if not world:
        return 1.0
    relative = torch.stack([_principal_point(P) / torch.tensor(size) for P, size in zip(world, sizes, strict=True)])
    median = relative.nan_to_num().median(0).values
    offset = {ratio: float((median / ratio - 0.5).abs().max()) for ratio in (1.0, *RATIOS)}
    best = min(offset, key=lambda ratio: offset[ratio])
    return best if offset[1.0] > 0.2 and offset[best] < 0.1 else 1.0


def _principal_point(P: Float[Tensor, "4 4"]) -> Float[Tensor, "2"]:
    """Return (cx, cy) of P = s K [R | t]: K [0, 0, 1] = K R r3, and r3 is the last row of P's left part up to scale."""
    KR = P[:3, :3]
    return (KR @ KR[2])[:2] / KR[2].square().sum() + 0.5


def _camera(path: Path, i: int, projection: Float[Tensor, "4 4"], ratio: float, width: int, height: int) -> Camera:
    """Return the camera of world_mat scale_mat: u_image = (u_matrix + 0.5) / ratio, pixel centres at +0.5."""
    with error_prefix(f"{path}: world_mat_{i}"):
        return Camera.from_projection(_to_image(ratio) @ projection[:3], width, height)


def _to_image(ratio: float) -> Float[Tensor, "3 3"]:
    """Return the matrix from pixels of the matrices, centres at integers, to pixels of the images, centres at +0.5."""
    return torch.tensor([[1 / ratio, 0, 0.5 / ratio], [0, 1 / ratio, 0.5 / ratio], [0, 0, 1]], dtype=torch.float64)


def _describe(ratio: float) -> str:
    """Describe how the matrices were scaled; empty if they were not."""
    if ratio == 1:
        return ""
    return f"; the matrices are for images {ratio:.3g} times as large (by the principal point) and were scaled to these"

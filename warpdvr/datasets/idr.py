"""Read IDR / NeuS data, and write its cameras: `cameras*.npz` beside `image/` and `mask/`.

Conventions as in lioryariv/idr (code/datasets/scene_dataset.py, code/utils/rend_util.py): world_mat = K [R | t], world
to camera, OpenCV axes; scale_mat takes the unit sphere to the world; pixel centres at integers.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.transform import SceneTransform
from warpdvr.datasets import files
from warpdvr.datasets.depth import attached
from warpdvr.datasets.depthfile import in_folder
from warpdvr.datasets.views import Views, cover, held_out, sizes, split
from warpdvr.runtime.files import within

PATTERN = "cameras*.npz"
TITLE = "IDR / NeuS"

RATIOS = (2.0, 4.0, 8.0, 0.5, 0.25, 0.125, 3.0, 1 / 3, 1.5, 2 / 3)
"""Sizes, in sizes of the images, that matrices for other images may be for."""


def read(folder: Path, found: list[Path], *, hold_out: int, depth_scale: float = 1.0, least: int = 2) -> Views:
    """Read the data set in `folder`, whose camera files are `found`; pictures and cameras pair up by order.

    Depth maps in `depth/` are z-depth in units of the data, as `depthfile.single` reads them.
    """
    path = _path(folder, found)
    world, scale = _matrices(within(folder, path.name), least)
    paths = photographs(folder, path, len(world))
    read_in = [files.picture(f) for f in paths]
    images = tuple(image for image, _ in read_in)
    masks, source = _masks(folder, images)
    ratio = _ratio(world, [(image.shape[1], image.shape[0]) for image in images])
    train, test = split(len(images), hold_out)
    said = (
        f"{TITLE}, {path.name}: {len(images)} views of {sizes(images)} pixels, world_mat = K [R | t], pixel centres at "
        f"integers (half a pixel added){_rescaled(ratio)}. {cover(masks, source)}. {held_out(train, test)}. "
        f"Scale from scale_mat: 1 scene unit = {scale.scale:.4g} units of the data."
    )
    cameras = tuple(
        _camera(path, i, P, scale, ratio, image) for i, (P, image) in enumerate(zip(world, images, strict=True))
    )
    views = Views(images, masks, cameras, files.unique_names(paths), train, test, scale, said)
    return attached(views, in_folder(folder, paths), depth_scale)


def rewritten(folder: Path, found: list[Path], cameras: Sequence[Camera]) -> dict[str, bytes]:
    """Return the camera file with other cameras, given in the data's own frame: world_mat and its inverse change.

    The matrices stay for images of the size that they were for; scale_mat and all other arrays are kept.
    """
    path = within(folder, _path(folder, found).name)
    arrays = files.arrays(path)
    n = sum(re.fullmatch(r"world_mat_\d+", key) is not None for key in arrays)
    files.matching(path, n, len(cameras))
    world = [files.matrix(path, arrays, f"world_mat_{i}") for i in range(n)]
    ratio = _ratio(world, [(camera.width, camera.height) for camera in cameras])
    for i, camera in enumerate(cameras):
        matrix = torch.eye(4, dtype=torch.float64)
        matrix[:3] = torch.linalg.inv(_to_image(ratio)) @ camera.matrix().double()
        arrays[f"world_mat_{i}"] = matrix.numpy()
        if f"world_mat_inv_{i}" in arrays:
            arrays[f"world_mat_inv_{i}"] = torch.linalg.inv(matrix).numpy()
    return {path.name: files.packed(arrays)}


def _path(folder: Path, found: list[Path]) -> Path:
    """Return the camera file that is read."""
    path = next((f for name in ("cameras_sphere.npz", "cameras.npz") for f in found if f.name == name), found[0])
    if path.name not in ("cameras_sphere.npz", "cameras.npz") and len(found) > 1:
        names = ", ".join(f.name for f in found)
        raise ValueError(f"{folder}: expected one camera file, found {names}; choose one with the argument `cameras`")
    return path


def _matrices(path: Path, least: int) -> tuple[list[Tensor], SceneTransform]:
    """Return world_mat of each view, (4, 4) float64, and the scale_mat that they share."""
    arrays = files.arrays(path, r"(world|scale)_mat_\d+")
    n = sum(key.startswith("world_mat_") for key in arrays)
    if n == 0:
        raise ValueError(f"{path}: expected matrices world_mat_0, world_mat_1, ..., found none")
    world, scale = ([files.matrix(path, arrays, f"{kind}_mat_{i}") for i in range(n)] for kind in ("world", "scale"))
    files.enough(path, n, least)
    for i, matrix in enumerate(world):
        _refuse_dvr(path, i, matrix[:3, :3])
    for i, matrix in enumerate(scale):
        if not torch.allclose(matrix, scale[0], rtol=1e-5):
            raise ValueError(f"{path}: scale_mat_{i} differs from scale_mat_0, expected one scene for all views")
    with files.naming(f"{path}: scale_mat_0"):
        return world, SceneTransform(scale[0])


def _refuse_dvr(path: Path, i: int, left: Tensor) -> None:
    """Refuse world_mat = [R | t], a rotation up to scale: the focal lengths are then elsewhere, in camera_mat.

    A key camera_mat does not tell: it stands in IDR files too, with another meaning.
    """
    if turns(left):
        raise ValueError(
            f"{path}: world_mat_{i} is [R | t] without K, expected K [R | t] in pixels as in IDR's files, or "
            "camera_mat into [-1, 1] beside it as in DVR's; multiply K into world_mat"
        )


def turns(left: Tensor) -> bool:
    """Say whether a matrix (3, 3) is a rotation, or a mirrored one, up to scale."""
    square = left @ left.T
    size = square.diagonal().mean()
    return bool(size > 0 and (square / size - torch.eye(3).to(left)).abs().max() < 1e-2)


def photographs(folder: Path, path: Path, n: int) -> list[Path]:
    """Return the `n` pictures in `folder`, as many as there are cameras in `path`."""
    home = files.subfolder(folder, "image", "images")
    if home is None:
        raise ValueError(f"{folder}: expected the photographs in a folder image or images, found neither")
    paths = files.pictures(home, folder)
    if len(paths) != n:
        raise ValueError(f"{home}: expected {n} pictures, one per world_mat in {path.name}, found {len(paths)}")
    return paths


def _masks(folder: Path, images: tuple[Tensor, ...]) -> tuple[tuple[Tensor | None, ...], str]:
    home = files.subfolder(folder, "mask", "masks")
    if home is None:
        return (None,) * len(images), "nowhere"
    paths = files.pictures(home, folder)
    if len(paths) != len(images):
        raise ValueError(f"{home}: expected {len(images)} masks, one per image, found {len(paths)}")
    return tuple(files.mask(f, image) for f, image in zip(paths, images, strict=True)), f"{home.name}/ (white = object)"


def _ratio(world: list[Tensor], size: list[tuple[int, int]]) -> float:
    """Return the size that the matrices are for, in sizes of the images (w, h), judged by the principal point.

    It is near the middle of a photograph. Images stay as they are unless it is clearly nearer for another size.
    """
    middle = torch.stack([_principal(P) / torch.tensor(own) for P, own in zip(world, size, strict=True)])
    at = middle.nan_to_num().median(0).values
    off = {ratio: float((at / ratio - 0.5).abs().max()) for ratio in (1.0, *RATIOS)}
    best = min(off, key=lambda ratio: off[ratio])
    return best if off[1.0] > 0.2 and off[best] < 0.1 else 1.0


def _principal(P: Tensor) -> Tensor:
    """Return (cx, cy) of P = s K [R | t]: K [0, 0, 1] = K R r3, and r3 is the last row of P's left part up to scale."""
    left = P[:3, :3]
    return (left @ left[2])[:2] / left[2].square().sum() + 0.5


def _camera(path: Path, i: int, world: Tensor, scale: SceneTransform, ratio: float, image: Tensor) -> Camera:
    """Return a camera in the unit sphere's frame: u_image = (u_matrix + 0.5) / ratio with pixel centres at +0.5."""
    height, width = image.shape[:2]
    with files.naming(f"{path}: world_mat_{i}"):
        return Camera.from_projection(_to_image(ratio) @ (world @ scale.matrix)[:3], width, height)


def _to_image(ratio: float) -> Tensor:
    """Return the matrix (3, 3) from pixels of the matrices, centres at integers, to those of the images."""
    return torch.tensor([[1 / ratio, 0, 0.5 / ratio], [0, 1 / ratio, 0.5 / ratio], [0, 0, 1]], dtype=torch.float64)


def _rescaled(ratio: float) -> str:
    if ratio == 1:
        return ""
    return f"; the matrices are for images {ratio:.3g} times as large (by the principal point) and were scaled to these"

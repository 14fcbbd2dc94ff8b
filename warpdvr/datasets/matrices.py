"""Read and write cameras as numbered matrices in an npz file (world_mat_0, ...), as IDR and DVR store them."""

import re
from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.transform import SceneTransform
from warpdvr.datasets.entries import Entry, NamedCamera
from warpdvr.datasets.files import error_prefix, find_subfolder, list_pictures, npz_bytes
from warpdvr.datasets.formats import Format


class MatrixFormat(Format):
    """A format of numbered matrices that also hold the scene frame, scale_mat."""

    @abstractmethod
    def export(self, cameras: Sequence[NamedCamera], transform: SceneTransform) -> dict[str, bytes]:
        """Return new camera files, by name relative to the data set.

        Args:
            cameras: in the data's own frame.
            transform: from the scene to the data's own frame.

        Raises:
            ValueError: if the format cannot hold one of the cameras.
        """


def count_cameras(arrays: dict[str, np.ndarray]) -> int:
    """Return how many arrays are called world_mat_ and a number."""
    return sum(re.fullmatch(r"world_mat_\d+", key) is not None for key in arrays)


def get_matrix(path: Path, arrays: dict[str, np.ndarray], key: str) -> Float[Tensor, "4 4"]:
    """Return the matrix of that name, float64; a (3, 4) matrix gets the last row [0, 0, 0, 1].

    Raises:
        ValueError: if it is missing, not finite or has another shape.
    """
    if key not in arrays:
        raise ValueError(f"{path}: {key} is missing, expected one per view, numbered from 0")
    array = arrays[key]
    if array.dtype.kind not in "fiu" or array.shape not in ((3, 4), (4, 4)):
        raise ValueError(f"{path}: {key} must be a (4, 4) matrix of numbers, found {array.dtype} {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{path}: {key} holds a number that is not finite")
    full = torch.eye(4, dtype=torch.float64)
    full[:3] = torch.from_numpy(array[:3].astype(np.float64))
    return full


def require_equal_scales(path: Path, i: int, scale: Float[Tensor, "4 4"], first: Float[Tensor, "4 4"]) -> None:
    """Raise ValueError if the i-th scale_mat differs from the first: the views would show different scenes."""
    if not torch.allclose(scale, first, rtol=1e-5):
        raise ValueError(f"{path}: scale_mat_{i} differs from scale_mat_0, expected one scene frame for all views")


def scene_transform(path: Path, scale: Float[Tensor, "4 4"]) -> SceneTransform:
    """Return scale_mat as a transform.

    Raises:
        ValueError: if its scale is not the same along all axes.
    """
    with error_prefix(f"{path}: scale_mat_0"):
        return SceneTransform(scale)


def is_scaled_rotation(matrix: Float[Tensor, "3 3"]) -> bool:
    """Return whether a matrix is a rotation, with or without a reflection, up to scale."""
    square = matrix @ matrix.T
    size = square.diagonal().mean()
    return bool(size > 0 and (square / size - torch.eye(3).to(matrix)).abs().max() < 1e-2)


def entry(folder: Path, picture: Path, camera: Callable[[int, int], Camera], mask: Path | None, i: int) -> Entry:
    """Return the i-th view of a data set whose pictures, masks and matrices pair up by order."""
    mask_name = None if mask is None else str(mask.relative_to(folder))
    return Entry(str(picture.relative_to(folder)), camera, f"world_mat_{i}", mask_name)


def find_pictures(folder: Path, camera_file: Path, n: int) -> list[Path]:
    """Return the `n` pictures in `folder`/image or images, as many as there are cameras in `camera_file`.

    Raises:
        ValueError: if there is no such subfolder, or the number of pictures in it is not `n`.
    """
    subfolder = find_subfolder(folder, "image", "images")
    if subfolder is None:
        raise ValueError(f"{folder}: expected the photographs in a folder image or images, found neither")
    paths = list_pictures(subfolder, folder)
    if len(paths) != n:
        raise ValueError(
            f"{subfolder}: expected {n} pictures, one per world_mat in {camera_file.name}, found {len(paths)}"
        )
    return paths


def replace_world_matrices(
    path: Path, arrays: dict[str, np.ndarray], matrices: Sequence[Float[Tensor, "3 4"] | None]
) -> bytes:
    """Return the content of the npz file with new world_mat, and with their inverses if the file stores those too.

    None keeps a matrix.

    Raises:
        ValueError: if a world_mat is missing in `arrays`, the content of the file `path`.
    """
    for i, matrix in enumerate(matrices):
        if f"world_mat_{i}" not in arrays:
            raise ValueError(f"{path}: world_mat_{i} is missing, expected one per view, numbered from 0")
        if matrix is None:
            continue
        world = torch.eye(4, dtype=torch.float64)
        world[:3] = matrix
        arrays[f"world_mat_{i}"] = world.numpy()
        if f"world_mat_inv_{i}" in arrays:
            arrays[f"world_mat_inv_{i}"] = torch.linalg.inv(world).numpy()
    return npz_bytes(arrays)

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


def get_view(path: Path, arrays: dict[str, np.ndarray], keys: Sequence[str]) -> tuple[list[Tensor], str | None]:
    """Return the matrices of a view, and what is wrong with one of them, if any is: then all are identities.

    Raises:
        ValueError: if one is missing.
    """
    try:
        return [get_matrix(path, arrays, key) for key in keys], None
    except ValueError as error:
        if any(key not in arrays for key in keys):
            raise
        return [torch.eye(4, dtype=torch.float64) for _ in keys], str(error)


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


def entry(
    folder: Path,
    picture: Path,
    camera: Callable[[int, int], Camera],
    mask: Path | None,
    i: int,
    broken: str | None = None,
) -> Entry:
    """Return the i-th view of a data set whose pictures, masks and matrices pair up by order."""
    mask_name = None if mask is None else str(mask.relative_to(folder))
    return Entry(str(picture.relative_to(folder)), camera, f"world_mat_{i}", mask_name, broken=broken)


def find_pictures(folder: Path, camera_file: Path, n: int) -> list[Path]:
    """Return the `n` pictures in `folder`/image or images, as many as there are cameras in `camera_file`.

    Where some are missing, their numbers say which (`fill_gaps`).

    Raises:
        ValueError: if there is no such subfolder, or it does not hold a picture per camera.
    """
    subfolder = find_subfolder(folder, "image", "images")
    if subfolder is None:
        raise ValueError(f"{folder}: expected the photographs in a folder image or images, found neither")
    paths = list_pictures(subfolder, folder)
    filled = fill_gaps(paths, n)
    if filled is None:
        raise ValueError(
            f"{subfolder}: expected {n} pictures, one per world_mat in {camera_file.name}, found {len(paths)}"
        )
    return filled


def fill_gaps(paths: Sequence[Path], n: int) -> list[Path] | None:
    """Return n files in order, with the names that missing ones should have; None if nothing tells which are missing.

    The names must be alike but for a number, which counts from 0 and 0 is there, or from 1 and n is there.
    """
    if len(paths) == n:
        return [*paths]
    numbered = [re.fullmatch(r"(.*?)(\d+)", path.stem) for path in paths]
    found = {int(match[2]): path for match, path in zip(numbered, paths, strict=True) if match}
    beginnings = {match[1] for match in numbered if match}
    first = 0 if 0 in found else 1 if n in found else -1
    whole = len(found) == len(paths) and len(beginnings) == 1 and first >= 0
    if not whole or min(found) < first or max(found) >= n + first:
        return None
    width = min(len(match[2]) for match in numbered if match)
    model = paths[0]
    names = [f"{next(iter(beginnings))}{i:0{width}d}{model.suffix}" for i in range(first, n + first)]
    return [found.get(i, model.with_name(name)) for i, name in enumerate(names, first)]


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

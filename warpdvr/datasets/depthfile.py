"""Read stored depth maps: one file per view, or one for all views.

z-depth is expected: the distance along the camera's forward axis, not the length of the ray.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from warpdvr.datasets.decode import opened
from warpdvr.datasets.files import find_subfolder, read_arrays, sort_by_number
from warpdvr.datasets.find import is_clutter
from warpdvr.runtime.files import path_inside

DEPTH_SUFFIXES = (".npy", ".npz", ".png")
"""The files that count as depth maps."""


@dataclass(frozen=True)
class DepthMap:
    """A stored depth map, not yet converted."""

    depth: Float[Tensor, "h w"]
    """z-depth [unit of the data], including invalid values."""
    path: Path
    """The file that it comes from, for messages."""


def read_depth_map(path: Path) -> DepthMap:
    """Read one map: `.npy`, `.npz` with one array or one called `depth`, or a 16-bit grey PNG.

    Floats are in the unit of the data, integers in thousandths of it: millimetres if that unit is the metre, as in
    nerfstudio (depth_unit_scale_factor = 1e-3; nerfstudio scales floats too: for those pass depth_scale=0.001).

    Raises:
        ValueError: if the file is missing, cannot be read or has another form.
    """
    if not path.is_file():
        raise ValueError(f"{path}: the depth map is missing")
    array = _read_png(path) if path.suffix.lower() == ".png" else _read_array(path)
    while array.ndim == 3 and 1 in (array.shape[0], array.shape[2]):
        array = array[0] if array.shape[0] == 1 else array[..., 0]
    if array.ndim != 2:
        raise ValueError(f"{path}: expected a depth map of shape (h, w), found {array.shape}")
    return DepthMap(_to_float(array, path), path)


def read_depth_stack(path: Path, n: int) -> list[DepthMap]:
    """Read the maps of `n` views from one file, the array `depth` (n, h, w) of an `.npz`; units as in `read_depth_map`.

    Raises:
        ValueError: if the file cannot be read or the array has another shape.
    """
    array = _read_array(path)
    if array.ndim != 3 or len(array) != n:
        raise ValueError(
            f"{path}: expected an array `depth` of shape ({n}, h, w), a map per frame, found {array.shape}"
        )
    return [DepthMap(depth, path) for depth in _to_float(array, path)]


def read_depth_folder(folder: Path, pictures: Sequence[Path], others: Sequence[str] = ()) -> list[DepthMap | None]:
    """Read the maps in `folder`/depth, paired with the pictures by order, or by name if there are fewer or more.

    Args:
        folder: the data set.
        pictures: the pictures.
        others: names of pictures without use whose maps may be there.

    Raises:
        ValueError: if the folder holds files of other kinds only, or a map belongs to no picture.
    """
    subfolder = find_subfolder(folder, "depth")
    if subfolder is None:
        return [None] * len(pictures)
    maps = (f for f in subfolder.iterdir() if f.suffix.lower() in DEPTH_SUFFIXES and not is_clutter(f.name))
    paths = sort_by_number(path_inside(folder, f.relative_to(folder)) for f in maps)
    if not paths:
        raise ValueError(
            f"{subfolder}: expected depth maps as .npy, .npz or PNG of 16 bits, found none; convert others, such as "
            ".exr, to float32 arrays (h, w) with np.save"
        )
    path_of = {f.stem: f for f in paths}
    if len(paths) == len(pictures):
        path_of = {picture.stem: f for picture, f in zip(pictures, paths, strict=True)}
    known = {picture.stem for picture in pictures} | {PurePosixPath(name.replace("\\", "/")).stem for name in others}
    unmatched = sorted(path_of.keys() - known)
    if unmatched:
        raise ValueError(
            f"{subfolder}: the depth map {path_of[unmatched[0]].name} belongs to no image, expected names such as "
            f"{pictures[0].stem}.npy for that of {pictures[0].name}"
        )
    return [read_depth_map(path_of[picture.stem]) if picture.stem in path_of else None for picture in pictures]


def _read_array(path: Path) -> np.ndarray:
    """Return the array of an `.npy`, or of an `.npz` with one array or one called `depth`."""
    arrays = read_arrays(path)
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    if "depth" not in arrays:
        raise ValueError(f"{path}: expected an array called `depth`, found {sorted(arrays) or 'none'}")
    return arrays["depth"]


def _read_png(path: Path) -> np.ndarray:
    with opened(path) as image:
        image.load()
        mode, array = image.mode, np.asarray(image)
    if not mode.startswith("I"):
        raise ValueError(f"{path}: expected a grey PNG of 16 bits per pixel, found a picture of mode {mode}")
    return array


def _to_float(array: np.ndarray, path: Path) -> Tensor:
    """Return the depth in the unit of the data; integers are thousandths of it."""
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{path}: expected depth as numbers, found {array.dtype}")
    with np.errstate(over="ignore"):  # numbers that are too large become infinite, which means missing
        numbers = torch.from_numpy(array.astype(np.float32, copy=False))
    return numbers if array.dtype.kind == "f" else numbers / 1000

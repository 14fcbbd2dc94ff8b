"""Read depth maps as they are stored: one file per view, or one for all views.

z-depth is expected: the distance along the camera's forward axis, not the length of the ray.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from warpdvr.datasets import files
from warpdvr.runtime.files import within

SUFFIXES = (".npy", ".npz", ".png")
"""The files that are taken for depth maps."""


@dataclass(frozen=True)
class DepthMap:
    """A depth map as it is stored."""

    depth: Tensor
    """Shape (h, w), float [unit of the data], still with its invalid values."""
    file: Path
    """Where it is from, for messages."""


def single(path: Path) -> DepthMap:
    """Read one map: `.npy`, `.npz` with one array or one called `depth`, or a grey PNG of 16 bits.

    Floats are in the unit of the data, integers in thousandths of it: millimetres where that is metres, as nerfstudio
    has it (depth_unit_scale_factor = 1e-3; for floats, which nerfstudio multiplies too, pass depth_scale=0.001).

    Raises:
        ValueError: if the file is missing, cannot be read or is of another form.
    """
    if not path.is_file():
        raise ValueError(f"{path}: the depth map is missing")
    array = _png(path) if path.suffix.lower() == ".png" else _array(path)
    while array.ndim == 3 and 1 in (array.shape[0], array.shape[2]):
        array = array[0] if array.shape[0] == 1 else array[..., 0]
    if array.ndim != 2:
        raise ValueError(f"{path}: expected a depth map of shape (h, w), found {array.shape}")
    return DepthMap(_floats(array, path), path)


def stacked(path: Path, n: int) -> list[DepthMap]:
    """Read the maps of `n` views from one file: the array `depth` (n, h, w) of an `.npz`; units as in `single`."""
    array = _array(path)
    if array.ndim != 3 or len(array) != n:
        raise ValueError(
            f"{path}: expected an array `depth` of shape ({n}, h, w), a map per frame, found {array.shape}"
        )
    return [DepthMap(depth, path) for depth in _floats(array, path)]


def in_folder(folder: Path, pictures: Sequence[Path]) -> list[DepthMap | None]:
    """Read the maps in `folder`/depth: of the i-th picture the i-th, or, where some views have none, that of its name.

    Raises:
        ValueError: if there are only files of another kind, or if a map belongs to no picture.
    """
    home = files.subfolder(folder, "depth")
    if home is None:
        return [None] * len(pictures)
    held = (f for f in home.iterdir() if f.suffix.lower() in SUFFIXES)
    found = files.by_number(within(folder, f.relative_to(folder)) for f in held)
    if not found:
        raise ValueError(
            f"{home}: expected depth maps as .npy, .npz or PNG of 16 bits, found none; convert others, such as .exr, "
            "with np.save to float32 arrays (h, w)"
        )
    by_name = {f.stem: f for f in found}
    if len(found) == len(pictures):
        by_name = {picture.stem: f for picture, f in zip(pictures, found, strict=True)}
    stray = sorted(by_name.keys() - {picture.stem for picture in pictures})
    if stray:
        raise ValueError(
            f"{home}: the depth map {by_name[stray[0]].name} belongs to no image, expected names such as "
            f"{pictures[0].stem}.npy for that of {pictures[0].name}"
        )
    return [single(by_name[picture.stem]) if picture.stem in by_name else None for picture in pictures]


def _array(path: Path) -> np.ndarray:
    """Return the array of an `.npy`, or of an `.npz` with one array or one called `depth`."""
    arrays = files.arrays(path)
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    if "depth" not in arrays:
        raise ValueError(f"{path}: expected an array called `depth`, found {sorted(arrays) or 'none'}")
    return arrays["depth"]


def _png(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            image.load()
            mode, array = image.mode, np.asarray(image)
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: expected a picture, found a file that cannot be read as one ({error})") from error
    if not mode.startswith("I"):
        raise ValueError(f"{path}: expected a grey PNG of 16 bits per pixel, found one of mode {mode}")
    return array


def _floats(array: np.ndarray, path: Path) -> Tensor:
    """Return depth in the unit of the data: integers are thousandths."""
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{path}: expected depth as numbers, found {array.dtype}")
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and so missing
        numbers = torch.from_numpy(array.astype(np.float32, copy=False))
    return numbers if array.dtype.kind == "f" else numbers / 1000

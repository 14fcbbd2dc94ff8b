"""Read LLFF data, and write its cameras: `poses_bounds.npy` beside `images/`.

Layout as in Fyusion/LLFF (README, "Using your own poses without running COLMAP", and llff/poses/pose_utils.py): a row
of 17 numbers per picture, in the order of the pictures' names sorted as text: a 3 x 5 matrix row by row, then the
nearest and the farthest depth. The matrix is [R | t | (h, w, f)], camera to world with the axes down, right, backwards;
one focal length [pixel], the principal point in the centre of the picture.
"""

import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.datasets.camera_numbers import intrinsics, make_camera, parameters_of, require_pinhole
from warpdvr.datasets.entries import Entry, Listing, NamedCamera
from warpdvr.datasets.files import find_subfolder, list_pictures, read_arrays
from warpdvr.datasets.formats import Detection, ReadOptions
from warpdvr.datasets.listing import ListedFormat
from warpdvr.datasets.normalise import meeting_point

FOLDERS = ("images", "image", "rgb")
"""Where the pictures are looked for."""


class LLFF(ListedFormat):
    """`poses_bounds.npy`: poses with the axes down, right, backwards, one focal length, and bounds of the depth."""

    title = "LLFF"
    pattern = "poses_bounds.npy"

    def listing(self, data: Detection, options: ReadOptions) -> Listing:
        """Return a view per row; rows and pictures, sorted as text, pair up by order."""
        path = data.choose()
        rows = _rows(path)
        subfolder = find_subfolder(data.folder, *FOLDERS)
        if subfolder is None:
            raise ValueError(f"{data.folder}: expected the pictures of {path.name} in a folder images, found none")
        names = sorted(picture.name for picture in list_pictures(subfolder, data.folder))
        if len(names) != len(rows):
            raise ValueError(
                f"{subfolder}: expected {len(rows)} pictures, one per row of {path.name}, found {len(names)}"
            )
        entries = [
            Entry(name, partial(_camera, label := f"{path}: row {i}", row), label)
            for i, (name, row) in enumerate(zip(names, rows, strict=True))
        ]
        return Listing(
            tuple(entries),
            path.name,
            "axes down, right, backwards; the principal point in the centre; pictures sorted as text",
            (subfolder.name,),
        )

    def export(self, cameras: Sequence[NamedCamera]) -> dict[str, bytes]:
        """Return the rows in the order of the pictures' names; the depth ends at twice the distance of the object."""
        ordered = sorted(cameras, key=lambda named: named.name)
        try:
            middle, _ = meeting_point([named.camera for named in cameras])
            distances = [float((named.camera.centre - middle).norm()) for named in ordered]
        except ValueError:  # cameras that look in parallel: any bounds will do
            distances = [1.0] * len(ordered)
        rows = [[*_numbers(named), 0.1 * d, 2 * d] for named, d in zip(ordered, distances, strict=True)]
        return {"poses_bounds.npy": _to_bytes(np.array(rows))}

    def write_cameras(self, data: Detection, cameras: Sequence[Camera]) -> dict[str, bytes]:
        """Return the rows with new poses; the bounds are kept."""
        path = data.choose()
        rows = _rows(path)
        for i, camera in enumerate(data.spread(cameras, len(rows))):
            if camera is not None:
                rows[i, :15] = torch.tensor(_numbers(NamedCamera(f"row {i}", camera)), dtype=torch.float64)
        return {path.name: _to_bytes(rows.numpy())}


def _rows(path: Path) -> Float[Tensor, "n 17"]:
    """Return the rows of the file, float64."""
    (array,) = read_arrays(path).values()
    if array.dtype.kind not in "fiu" or array.ndim != 2 or array.shape[1] != 17:
        raise ValueError(f"{path}: expected numbers (n, 17), a row per picture, found {array.dtype} {array.shape}")
    return torch.from_numpy(array.astype(np.float64))


def _camera(label: str, row: Float[Tensor, "17"], width: int, height: int) -> Camera:
    """Return the camera of a row; the axes right, down, forwards are its columns 1, 0 and -2."""
    table = row[:15].reshape(3, 5)
    h, w, f = table[:, 4].tolist()
    pose = torch.stack([table[:, 1], table[:, 0], -table[:, 2], table[:, 3]], 1)
    return make_camera(label, intrinsics(f, f, w / 2, h / 2), pose, (width, height), stored=(w, h))


def _numbers(named: NamedCamera) -> list[float]:
    """Return the first 15 numbers of a row."""
    require_pinhole(named, LLFF.title)
    p = parameters_of(named, LLFF.title, square=True, centred=True)
    right, down, forward, centre = p.pose[:3].unbind(1)
    size = torch.tensor([p.height, p.width, p.fx], dtype=torch.float64)
    numbers: list[float] = torch.stack([down, right, -forward, centre, size], 1).flatten().tolist()
    return numbers


def _to_bytes(rows: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, rows.astype(np.float64), allow_pickle=False)
    return stream.getvalue()

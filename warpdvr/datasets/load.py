"""Photographs, masks and cameras in; everything comes out in the scene frame, with the object in the unit sphere.

Where the scene frame lies in the data's is told by a file (scale_mat of IDR and DVR), else by the visual hull of the
masks, else by where the cameras look (`hull.normalised`); `load(folder, normalise=False)` leaves it where it is.

`load` reads a folder in one of four formats, `mesh_views` renders a mesh. Both return `Views`. `write_cameras` writes
cameras in the format that they were read from.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.transform import SceneTransform
from warpdvr.datasets import dvr, idr, middlebury
from warpdvr.datasets import nerfstudio as transforms
from warpdvr.datasets.depth import points_of
from warpdvr.datasets.synthetic import mesh_views
from warpdvr.datasets.views import SparseDepth, Views
from warpdvr.runtime.files import replacing

__all__ = ["FORMATS", "SceneTransform", "SparseDepth", "Views", "load", "mesh_views", "write_cameras"]

FORMATS = (dvr, idr, middlebury, transforms)
"""The readers, asked in this order; each has PATTERN (the files it is recognised by), TITLE, read(folder, ...) and
rewritten(folder, found, cameras), the content of its camera files by name; it may have claims(path): whether such a
file is its own."""


def load(
    folder: Path | str,
    *,
    hold_out: int = 8,
    cameras: str | None = None,
    depth_scale: float = 1.0,
    normalise: bool = True,
) -> Views:
    """Read the photographs, masks and cameras in `folder`; its format is detected by the files in it.

    DVR (`cameras.npz` with camera_mat and world_mat = [R | t]), IDR / NeuS (`cameras*.npz`), Middlebury (`*_par.txt`),
    nerfstudio / instant-ngp / Blender (`transforms*.json`).
    `Views.found` says what was detected. No file outside of `folder` is read, nothing is unpickled.

    Depth is read where there is some: a map per picture in `depth/`, what a format has of its own (see its module), and
    sparse points in `points.npz`, arrays `points` (m, 3) in the data's own unit and frame and `visible` (v, m), bool,
    in the order of the views. Maps are z-depth along the camera's forward axis, not ray length; zeros, negatives, NaN
    and infinities are missing. Depth that contradicts the masks is refused, see `depth.agreement`.

    Args:
        folder: the data set.
        hold_out: views 0, hold_out, 2 hold_out, ... are held out from training; 0 holds out none.
            A test split that comes with the data (`transforms_test.json`) is used instead.
        cameras: name of the camera file in `folder`, where it holds several.
        depth_scale: factor from the unit of the depth maps to the data's own, that of the cameras' positions.
        normalise: put the object into the unit sphere. False: the scene frame is the data's own, for fields that have a
            frame of their own, such as trained decoders; then one view is enough.

    Raises:
        ValueError: if a file is missing, damaged or of another form than expected, or if files do not fit together.
    """
    folder = Path(folder)
    if not 0 < depth_scale < math.inf:
        raise ValueError(f"depth_scale must be positive, got {depth_scale}")
    if hold_out < 0 or hold_out == 1:
        raise ValueError(f"hold_out must be 0 (no view) or at least 2 (every second view), got {hold_out}")
    if not folder.is_dir():
        raise ValueError(
            f"{folder}: expected a folder of photographs, found {'a file' if folder.exists() else 'nothing'}"
        )
    if not any(folder.iterdir()):
        raise ValueError(f"{folder}: expected photographs and cameras, found an empty folder")
    reader, found = _reader(folder, cameras)
    least = 2 if normalise else 1
    views: Views = reader.read(folder, found, hold_out=hold_out, depth_scale=depth_scale, least=least)
    if depth_scale != 1 and not views.depths:
        raise ValueError(f"{folder}: depth_scale is {depth_scale:g}, but there is no depth to scale")
    views = points_of(folder, views)
    return views if normalise else views.as_given()


def write_cameras(
    folder: Path | str, views: Views, cameras: Sequence[Camera], out: Path, *, name: str | None = None
) -> list[Path]:
    """Write where cameras stand, in the format, the frame and under the file names of the data set that they are of.

    All else in those files is kept: intrinsics, the size of the images that they are for, scale_mat, names of pictures.

    Args:
        folder: the data set; it is not changed unless `out` is the same.
        views: what `load` made of it.
        cameras: of all views, in the scene frame.
        out: folder for the files; made if it is not there.
        name: name of the camera file, where `folder` holds several: `cameras` of `load`.

    Raises:
        ValueError: if there are not as many cameras as in the files.
    """
    if len(cameras) != len(views):
        raise ValueError(f"{folder}: expected a camera for each of {len(views)} views, got {len(cameras)}")
    reader, found = _reader(Path(folder), name)
    own = [views.transform.to_data(camera.to("cpu")) for camera in cameras]
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for file, content in reader.rewritten(Path(folder), found, own).items():
        with replacing(out / file) as unfinished:
            unfinished.write_bytes(content)
        written.append(out / file)
    return written


def _reader(folder: Path, cameras: str | None) -> tuple[Any, list[Path]]:
    """Return the reader for a folder, and the camera files that it is to read."""
    for reader in FORMATS:
        found = sorted(folder.glob(reader.PATTERN))
        if cameras is not None:
            found = [f for f in found if f.name == cameras]
        claims: Callable[[Path], bool] | None = getattr(reader, "claims", None)
        if found and (claims is None or any(map(claims, found))):
            return reader, found
    known = "; ".join(f"{reader.TITLE} with {reader.PATTERN}" for reader in FORMATS)
    wanted = "a camera file of a known format" if cameras is None else f"a camera file called {cameras!r}"
    raise ValueError(f"{folder}: expected {wanted}, found none; known are {known}")

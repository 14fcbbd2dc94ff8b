"""Poses in a folder `pose/`, a text file with the name of each picture, as NSVF and ScanNet store them."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path, PurePath

import torch

from warpdvr.cameras.camera import Camera
from warpdvr.datasets.camera_numbers import intrinsics, parameters_of, require_pinhole, require_shared
from warpdvr.datasets.entries import Entry, NamedCamera
from warpdvr.datasets.files import picture_names, sort_by_number
from warpdvr.datasets.find import is_clutter
from warpdvr.datasets.textfiles import join_rows
from warpdvr.runtime.files import path_inside


def list_poses(
    folder: Path, pictures: Sequence[str], suffix: str, camera: Callable[[Path, int, int], Camera]
) -> list[Entry]:
    """Return a view per file in `pose/`, sorted by number.

    Args:
        folder: the data set.
        pictures: subfolders of which the first that exists holds the pictures.
        suffix: that of a picture that is not there, for messages.
        camera: returns the camera of a file in `pose/` for a picture of that width and height [pixel].
    """
    names = picture_names(folder, pictures)
    files = sort_by_number(f for f in (folder / "pose").glob("*.txt") if not is_clutter(f.name))
    return [
        Entry(
            names.get(file.stem, file.stem + suffix),
            partial(camera, path_inside(folder, file.relative_to(folder))),
            str(file),
        )
        for file in files
    ]


def pose_contents(cameras: Sequence[NamedCamera], title: str, file: str, *, offset: float = 0.0) -> dict[str, bytes]:
    """Return a file with the K of all cameras, 4 x 4, and a file in `pose/` for each.

    Args:
        cameras: what is written.
        title: the format, for messages.
        file: name of the file of K.
        offset: is added to the principal point [pixel].

    Raises:
        ValueError: if a camera has a lens, or another K than the first one.
    """
    require_shared(cameras, title)
    K, files = torch.eye(4, dtype=torch.float64), {}
    for named in cameras:
        require_pinhole(named, title)
        p = parameters_of(named, title, skew=True)
        K[:3, :3] = intrinsics(p.fx, p.fy, p.cx + offset, p.cy + offset, p.skew)
        files[f"pose/{PurePath(named.name).stem}.txt"] = join_rows(p.pose).encode()
    return {file: join_rows(K).encode(), **files}

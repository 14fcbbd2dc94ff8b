"""Read ARKit frames as 3D Scanner App exports them ("All Data"), and write their cameras: `frame_*.json`.

The app's maker publishes no description; the layout is that which converters read (for one, PIPELINE.md of
sagharborrum/arkit-to-colmap). A table per picture `frame_00000.jpg`: `cameraPoseARFrame`, 16 numbers, a matrix row by
row, camera to world, and `intrinsics`, 9 numbers, K row by row, for the picture as it is stored. Axes are right, up,
backwards of the picture in landscape and metres (Apple's documentation of ARKit, ARCamera.transform and
ARCamera.intrinsics); Apple counts the principal point from the corner of the picture: pixel centres are at +0.5. Frames
without a picture are not views: the app stores more poses than pictures.
"""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePath

from warpdvr.cameras.camera import Camera
from warpdvr.datasets.camera_numbers import from_opengl, intrinsics, make_camera, parameters_of, require_pinhole
from warpdvr.datasets.entries import Entry, Listing, NamedCamera
from warpdvr.datasets.files import picture_names, sort_by_number
from warpdvr.datasets.formats import Detection, ReadOptions
from warpdvr.datasets.listing import ListedFormat
from warpdvr.datasets.textfiles import read_json, to_matrix
from warpdvr.runtime.files import path_inside

FOLDERS = ("", "images", "image")
"""Where the pictures are looked for."""


class ARKit(ListedFormat):
    """`frame_*.json` with `cameraPoseARFrame` and `intrinsics`, beside `frame_*.jpg`."""

    title = "ARKit / 3D Scanner App"
    pattern = "frame_*.json"

    def recognises(self, path: Path) -> bool:
        """Return whether the file has the pose of a frame."""
        with path.open("rb") as file:
            return b'"cameraPoseARFrame"' in file.read(1 << 16)

    def listing(self, data: Detection, options: ReadOptions) -> Listing:
        """Return a view per frame that has a picture."""
        pairs = _pairs(data)
        entries = [Entry(name, partial(_camera, path), str(path)) for path, name in pairs]
        words = "camera to world, OpenGL axes, pixel centres at +0.5"
        if len(pairs) < len(data.camera_files):
            words += f"; {len(data.camera_files) - len(pairs)} further frames have no picture"
        return Listing(tuple(entries), "frame_*.json", words, FOLDERS)

    def export(self, cameras: Sequence[NamedCamera]) -> dict[str, bytes]:
        """Return a table per picture, by its name, which begins with `frame_`."""
        return {f"{_stem(named.name)}.json": _content({}, named) for named in cameras}

    def write_cameras(self, data: Detection, cameras: Sequence[Camera]) -> dict[str, bytes]:
        """Return the tables with new cameras; all other entries are kept."""
        pairs = _pairs(data)
        return {
            path.name: _content(read_json(path), NamedCamera(name, camera))
            for (path, name), camera in zip(pairs, data.spread(cameras, len(pairs)), strict=True)
            if camera is not None
        }


def _pairs(data: Detection) -> list[tuple[Path, str]]:
    """Return the tables of the frames that have a picture, with its name."""
    names: dict[str, str] = {}
    for folder in FOLDERS:
        names = picture_names(data.folder, (folder or ".",)) | names
    files = [f for f in sort_by_number(data.camera_files) if f.stem in names]
    return [(path_inside(data.folder, f.relative_to(data.folder)), names[f.stem]) for f in files]


def _stem(name: str) -> str:
    stem = PurePath(name).stem
    return stem if stem.startswith("frame_") else f"frame_{stem}"


def _camera(path: Path, width: int, height: int) -> Camera:
    table = read_json(path)
    pose = to_matrix(f"{path}: cameraPoseARFrame", table.get("cameraPoseARFrame"), 4, 4)
    K = to_matrix(f"{path}: intrinsics", table.get("intrinsics"), 3, 3)
    return make_camera(str(path), K, from_opengl(pose), (width, height))


def _content(table: dict[str, object], named: NamedCamera) -> bytes:
    require_pinhole(named, ARKit.title)
    p = parameters_of(named, ARKit.title)
    K = intrinsics(p.fx, p.fy, p.cx, p.cy)
    table |= {"cameraPoseARFrame": from_opengl(p.pose).flatten().tolist(), "intrinsics": K.flatten().tolist()}
    return (json.dumps(table, indent=1) + "\n").encode()

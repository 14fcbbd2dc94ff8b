"""Read Polycam's raw data, and write its cameras: `keyframes/corrected_cameras/` or `keyframes/cameras/`.

Layout as in PolyCam/polyform (polyform/core/capture_folder.py): a table per picture, with its name, of `fx`, `fy`,
`cx`, `cy`, `width`, `height` [pixel] and t_00 .. t_23, the rows of a matrix, camera to world, axes right, up, backwards
(polyform/convertors/instant_ngp.py copies it as it is), y up, in metres; nerfstudio's converter turns the world
(process_data/polycam_utils.py), which is not done here. `corrected_` cameras are those after global optimisation, with
pictures of their own in `corrected_images`. Apple counts the principal point from the corner of the picture (ARKit,
ARCamera.intrinsics): pixel centres are at +0.5.
"""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePath

import torch

from warpdvr.cameras.camera import Camera
from warpdvr.datasets.camera_numbers import from_opengl, intrinsics, make_camera, parameters_of, require_pinhole
from warpdvr.datasets.entries import Entry, Listing, NamedCamera
from warpdvr.datasets.files import picture_names, sort_by_number
from warpdvr.datasets.formats import Detection, ReadOptions
from warpdvr.datasets.listing import ListedFormat
from warpdvr.datasets.textfiles import get_number, read_json
from warpdvr.runtime.files import path_inside

KINDS = (("corrected_cameras", "corrected_images"), ("cameras", "images"))
"""Folders of cameras in `keyframes/`, the better one first, and of their pictures."""

KEYS = [(f"t_{i}{j}", i, j) for i in range(3) for j in range(4)]


class Polycam(ListedFormat):
    """`keyframes/corrected_cameras/*.json` or `keyframes/cameras/*.json`: a table per picture."""

    title = "Polycam"
    pattern = "keyframes/*cameras/*.json"

    def listing(self, data: Detection, options: ReadOptions) -> Listing:
        """Return a view per table, of the corrected cameras if there are any."""
        kind, files = _files(data)
        folders = (f"keyframes/{dict(KINDS)[kind]}", "images", "image")
        names = picture_names(data.folder, folders)
        entries = []
        for file in files:
            path = path_inside(data.folder, file.relative_to(data.folder))
            entries.append(Entry(names.get(file.stem, f"{file.stem}.jpg"), partial(_camera, path), str(path)))
        words = "camera to world, OpenGL axes, pixel centres at +0.5"
        return Listing(tuple(entries), f"keyframes/{kind}/", words, folders)

    def export(self, cameras: Sequence[NamedCamera]) -> dict[str, bytes]:
        """Return a table per picture, by its name."""
        return {
            f"keyframes/corrected_cameras/{PurePath(named.name).stem}.json": _content({}, named) for named in cameras
        }

    def write_cameras(self, data: Detection, cameras: Sequence[Camera]) -> dict[str, bytes]:
        """Return the tables with new cameras; all other entries are kept."""
        kind, files = _files(data)
        return {
            f"keyframes/{kind}/{file.name}": _content(read_json(file), NamedCamera(file.name, camera))
            for file, camera in zip(files, data.spread(cameras, len(files)), strict=True)
            if camera is not None
        }


def _files(data: Detection) -> tuple[str, list[Path]]:
    """Return the name of the folder of the cameras, and the files in it."""
    for kind, _ in KINDS:
        if files := [f for f in data.camera_files if f.parent.name == kind]:
            return kind, sort_by_number(files)
    raise ValueError(f"{data.folder}: expected keyframes/corrected_cameras or keyframes/cameras, found neither")


def _camera(path: Path, width: int, height: int) -> Camera:
    table = read_json(path)
    label = str(path)
    pose = torch.eye(4, dtype=torch.float64)
    for key, i, j in KEYS:
        pose[i, j] = get_number(label, table, key)
    fx, fy, cx, cy, w, h = (get_number(label, table, key) for key in ("fx", "fy", "cx", "cy", "width", "height"))
    return make_camera(label, intrinsics(fx, fy, cx, cy), from_opengl(pose), (width, height), stored=(w, h))


def _content(table: dict[str, object], named: NamedCamera) -> bytes:
    require_pinhole(named, Polycam.title)
    p = parameters_of(named, Polycam.title)
    pose = from_opengl(p.pose)
    entries = {"fx": p.fx, "fy": p.fy, "cx": p.cx, "cy": p.cy, "width": p.width, "height": p.height}
    table |= entries | {key: float(pose[i, j]) for key, i, j in KEYS}
    return (json.dumps(table, indent=1) + "\n").encode()

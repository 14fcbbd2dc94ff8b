"""Read Record3D's exports, and write their cameras: `metadata` (of an unpacked .r3d) or `metadata.json`.

The app's author describes the file in answers only (marek-simonik/record3d, issues 27, 33, 83 and 93): a JSON table of
`w`, `h` [pixel], `K`, the 3 x 3 matrix of the first picture column by column (nerfstudio/process_data/record3d_utils.py
transposes it), and `poses`, a list of (qx, qy, qz, qw, tx, ty, tz), camera to world, OpenGL axes: right, up, backwards,
in metres, the first one zero; newer files add `perFrameIntrinsicCoeffs`, a list of (fx, fy, cx, cy) at the size of the
pictures. Poses and pictures, in `rgbd/` or `rgb/`, pair up by number. Pixel centres are at +0.5, as ARKit counts them
(see `polycam`).
"""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.datasets.camera_numbers import (
    from_opengl,
    from_quaternion,
    intrinsics,
    make_camera,
    parameters_of,
    require_pinhole,
    to_quaternion,
)
from warpdvr.datasets.entries import Entry, Listing, NamedCamera
from warpdvr.datasets.files import find_subfolder, list_pictures
from warpdvr.datasets.formats import Detection, ReadOptions
from warpdvr.datasets.listing import ListedFormat
from warpdvr.datasets.textfiles import get_list, get_number, read_json, to_matrix, to_numbers

FOLDERS = ("rgbd", "rgb", "images", "image")
"""Where the pictures are looked for."""


class Record3D(ListedFormat):
    """`metadata` or `metadata.json` with `K`, `w`, `h` and `poses`."""

    title = "Record3D"
    pattern = "metadata*"

    def recognises(self, path: Path) -> bool:
        """Return whether the file has the entries of Record3D."""
        try:
            return path.suffix in ("", ".json") and {"K", "poses", "w", "h"} <= read_json(path).keys()
        except ValueError:  # the next format that is tried reports what is wrong
            return False

    def listing(self, data: Detection, options: ReadOptions) -> Listing:
        """Return a view per pose."""
        path = data.choose("metadata", "metadata.json")
        table = read_json(path)
        poses, K = get_list(str(path), table, "poses"), _intrinsics(path, table)
        size = get_number(str(path), table, "w"), get_number(str(path), table, "h")
        subfolder = find_subfolder(data.folder, *FOLDERS)
        if subfolder is None:
            raise ValueError(f"{data.folder}: expected the pictures in a folder rgbd or rgb, found neither")
        names = [picture.name for picture in list_pictures(subfolder, data.folder)]
        if len(names) != len(poses):
            raise ValueError(
                f"{subfolder}: expected {len(poses)} pictures, one per pose of {path.name}, found {len(names)}"
            )
        entries = [
            Entry(name, partial(_camera, label := f"{path}: pose {i}", pose, K[i % len(K)], size), label)
            for i, (name, pose) in enumerate(zip(names, poses, strict=True))
        ]
        words = "quaternions, camera to world, OpenGL axes, K column by column, pixel centres at +0.5"
        return Listing(tuple(entries), path.name, words, (subfolder.name,))

    def export(self, cameras: Sequence[NamedCamera]) -> dict[str, bytes]:
        """Return `metadata.json`, with intrinsics per picture; pictures are in the order of their names."""
        return {"metadata.json": _content({}, cameras)}

    def write_cameras(self, data: Detection, cameras: Sequence[Camera]) -> dict[str, bytes]:
        """Return the file with new poses and intrinsics; all other entries are kept."""
        path = data.choose("metadata", "metadata.json")
        table = read_json(path)
        poses, K = get_list(str(path), table, "poses"), _intrinsics(path, table)
        size = int(get_number(str(path), table, "w")), int(get_number(str(path), table, "h"))
        own = [
            _camera(f"pose {i}", poses[i], K[i % len(K)], size, *size) if camera is None else camera
            for i, camera in enumerate(data.spread(cameras, len(poses)))
        ]
        return {path.name: _content(table, [NamedCamera(f"pose {i}", camera) for i, camera in enumerate(own)])}


def _intrinsics(path: Path, table: dict[str, object]) -> list[Float[Tensor, "3 3"]]:
    """Return K of each picture, or the one of all."""
    if "perFrameIntrinsicCoeffs" not in table:
        return [to_matrix(f"{path}: K", table["K"], 3, 3).T]
    rows = get_list(str(path), table, "perFrameIntrinsicCoeffs")
    n = len(get_list(str(path), table, "poses"))
    if len(rows) != n:
        raise ValueError(f"{path}: expected {n} perFrameIntrinsicCoeffs, one per pose, found {len(rows)}")
    numbers = [to_numbers(f"{path}: perFrameIntrinsicCoeffs {i}", row, 4) for i, row in enumerate(rows)]
    return [intrinsics(fx, fy, cx, cy) for fx, fy, cx, cy in numbers]


def _camera(
    label: str, row: object, K: Float[Tensor, "3 3"], stored: tuple[float, float], width: int, height: int
) -> Camera:
    qx, qy, qz, qw, *place = to_numbers(label, row, 7)
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3] = from_quaternion(label, qx, qy, qz, qw)
    pose[:3, 3] = torch.tensor(place, dtype=torch.float64)
    return make_camera(label, K, from_opengl(pose), (width, height), stored=stored)


def _content(table: dict[str, object], cameras: Sequence[NamedCamera]) -> bytes:
    """Return the file with new cameras."""
    size, rows, coefficients = (cameras[0].camera.width, cameras[0].camera.height), [], []
    for named in cameras:
        require_pinhole(named, Record3D.title)
        p = parameters_of(named, Record3D.title)
        if (p.width, p.height) != size:
            raise ValueError(f"{Record3D.title}: the picture {named.name} has another size than the first")
        pose = from_opengl(p.pose)
        rows.append([*to_quaternion(pose[:3, :3]), *pose[:3, 3].tolist()])
        coefficients.append([p.fx, p.fy, p.cx, p.cy])
    K = cameras[0].camera.K.detach().cpu().double().T.flatten().tolist()
    entries = {"w": size[0], "h": size[1], "K": K, "poses": rows, "perFrameIntrinsicCoeffs": coefficients}
    return (json.dumps(table | entries) + "\n").encode()

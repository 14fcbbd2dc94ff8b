"""Read BlendedMVS and MVSNet data, and write its cameras: `cams/*_cam.txt` beside `blended_images/` or `images/`.

Layout as in YoYo000/BlendedMVS and YoYo000/MVSNet (README, "Camera files"): the word `extrinsic`, a 4 x 4 matrix, world
to camera, OpenCV axes; the word `intrinsic`, a 3 x 3 matrix K; and a line that begins with the smallest depth and the
interval of the depths. `00000000_cam.txt` belongs to the picture `00000000.jpg`; `_masked.jpg` are copies without
background, and are not read. Pixel centres are not defined; they are taken to be at +0.5, since MVSNet's converter
copies the intrinsics of COLMAP (colmap2mvsnet.py), which are.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePath

from warpdvr.cameras.camera import Camera
from warpdvr.datasets.camera_numbers import intrinsics, inverse_pose, make_camera, parameters_of, require_pinhole
from warpdvr.datasets.entries import Entry, Listing, NamedCamera
from warpdvr.datasets.files import picture_names, sort_by_number
from warpdvr.datasets.formats import Detection, ReadOptions
from warpdvr.datasets.listing import ListedFormat
from warpdvr.datasets.textfiles import join_rows, read_text, to_matrix
from warpdvr.runtime.files import path_inside

FOLDERS = ("blended_images", "images", "image")
"""Where the pictures are looked for."""

DEPTH = "0.1 0.01 192 2.01"
"""Smallest depth, interval, number and largest depth of a file that is written without an older one."""


class BlendedMVS(ListedFormat):
    """`cams/*_cam.txt`: `extrinsic`, 4 x 4, world to camera, and `intrinsic`, 3 x 3, for each picture."""

    title = "BlendedMVS / MVSNet"
    pattern = "cams/*_cam.txt"

    def listing(self, data: Detection, options: ReadOptions) -> Listing:
        """Return a view per file in `cams/`."""
        names = picture_names(data.folder, FOLDERS)
        entries = []
        for file in sort_by_number(data.camera_files):
            stem = file.stem.removesuffix("_cam")
            path = path_inside(data.folder, file.relative_to(data.folder))
            entries.append(Entry(names.get(stem, f"{stem}.jpg"), partial(_camera, path), str(path)))
        words = "extrinsic world to camera, OpenCV axes, pixel centres taken to be at +0.5 (the format does not say)"
        return Listing(tuple(entries), "cams/", words, FOLDERS)

    def export(self, cameras: Sequence[NamedCamera]) -> dict[str, bytes]:
        """Return a file per picture, by its name; the range of depths is a placeholder."""
        return {
            f"cams/{PurePath(named.name).stem}_cam.txt": f"{_matrices(named)}\n{DEPTH}\n".encode() for named in cameras
        }

    def write_cameras(self, data: Detection, cameras: Sequence[Camera]) -> dict[str, bytes]:
        """Return the files with new matrices; the lines of the depths are kept."""
        files = sort_by_number(data.camera_files)
        contents = {}
        for file, camera in zip(files, data.spread(cameras, len(files)), strict=True):
            if camera is None:
                continue
            path = path_inside(data.folder, file.relative_to(data.folder))
            depth = " ".join(_words(path)[27:]) or DEPTH
            contents[f"cams/{file.name}"] = f"{_matrices(NamedCamera(file.name, camera))}\n{depth}\n".encode()
        return contents


def _words(path: Path) -> list[str]:
    """Return the words of a file, which begins with `extrinsic` and 16 numbers, then `intrinsic` and 9."""
    words = read_text(path).split()
    if len(words) < 27 or (words[0], words[17]) != ("extrinsic", "intrinsic"):
        raise ValueError(f"{path}: expected `extrinsic` and 16 numbers, then `intrinsic` and 9, found something else")
    return words


def _camera(path: Path, width: int, height: int) -> Camera:
    words = _words(path)
    world = to_matrix(f"{path}: extrinsic", words[1:17], 4, 4)
    K = to_matrix(f"{path}: intrinsic", words[18:27], 3, 3)
    return make_camera(str(path), K, inverse_pose(str(path), world[:3, :3], world[:3, 3]), (width, height))


def _matrices(named: NamedCamera) -> str:
    """Return the lines of both matrices."""
    require_pinhole(named, BlendedMVS.title)
    p = parameters_of(named, BlendedMVS.title, skew=True)
    K = join_rows(intrinsics(p.fx, p.fy, p.cx, p.cy, p.skew))
    return f"extrinsic\n{join_rows(p.pose.inverse())}\nintrinsic\n{K}"

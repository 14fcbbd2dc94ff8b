"""Read bare 3 x 4 projection matrices, and write them: a text file of 12 numbers per picture, such as `*.P`.

Layouts of the Visual Geometry Group, Oxford (`viff.000.P` beside `viff.000.ppm`, www.robots.ox.ac.uk/~vgg/data/mview)
and of PMVS-2 (`txt/00000000.txt`, which begins with the word CONTOUR, beside `visualize/00000000.jpg`; Furukawa and
Ponce, www.di.ens.fr/pmvs/documentation.html): P = s K [R | t] maps points of the world to pixels, s any number, also a
negative one. Skew is kept. Where pixel centres are is not defined; they are taken to be at integers.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePath

import torch

from warpdvr.cameras.camera import Camera
from warpdvr.datasets.camera_numbers import require_pinhole
from warpdvr.datasets.entries import Entry, Listing, NamedCamera
from warpdvr.datasets.files import error_prefix, find_subfolder, list_pictures, sort_by_number
from warpdvr.datasets.find import is_clutter
from warpdvr.datasets.formats import Detection, ReadOptions, inside
from warpdvr.datasets.listing import ListedFormat
from warpdvr.datasets.matrices import is_scaled_rotation
from warpdvr.datasets.textfiles import join_rows, read_text, to_matrix
from warpdvr.runtime.files import path_inside

PATTERNS = ("*.P", "P/*.P", "images/*.P", "txt/*.txt", "calib/*.txt", "cameras/*.txt", "matrices/*.txt")
"""Where the files are looked for."""

FOLDERS = ("", "images", "image", "visualize", "rgb")
"""Where the pictures are looked for."""

TO_CENTRES = torch.tensor([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]], dtype=torch.float64)
"""From pixel centres at integers to those at +0.5."""


class ProjectionMatrices(ListedFormat):
    """A text file of 12 numbers per picture, with its name: the matrix P of x = P X."""

    title = "projection matrices"
    pattern = "*.P or txt/*.txt, a 3 x 4 matrix in each"

    def detect(self, folder: Path, cameras: str | None = None) -> Detection | None:
        """Return the first kind of files that hold such matrices."""
        for pattern in PATTERNS:
            found = (f for f in folder.glob(pattern) if not is_clutter(f.name))
            paths = sort_by_number(f for f in found if cameras is None or f.name == cameras)
            if any(map(self.recognises, inside(folder, paths[:1]))):
                return Detection(self, folder, tuple(paths))
        return None

    @property
    def globs(self) -> Sequence[str]:
        """All places."""
        return PATTERNS

    def recognises(self, path: Path) -> bool:
        """Return whether a file holds 12 numbers, and nothing else but the word CONTOUR."""
        try:
            _ = to_matrix("", _numbers(path), 3, 4)
        except ValueError:  # the next format that is tried reports what is wrong
            return False
        return True

    def listing(self, data: Detection, options: ReadOptions) -> Listing:
        """Return a view per file; it has the name of its picture, with or without the picture's suffix."""
        pictures = [
            f
            for name in FOLDERS
            if (s := find_subfolder(data.folder, name or "."))
            for f in list_pictures(s, data.folder)
        ]
        names = {f.stem: f.name for f in reversed(pictures)} | {f.name: f.name for f in pictures}
        entries = [
            Entry(
                names.get(f.stem, f"{f.stem}.png"),
                partial(_camera, path_inside(data.folder, f.relative_to(data.folder))),
                str(f),
            )
            for f in data.camera_files
        ]
        words = "P = s K [R | t], pixel centres taken to be at integers (the format does not say; half a pixel added)"
        parent = data.camera_files[0].parent.relative_to(data.folder)
        return Listing(tuple(entries), str(parent / f"*{data.camera_files[0].suffix}"), words, FOLDERS)

    def export(self, cameras: Sequence[NamedCamera]) -> dict[str, bytes]:
        """Return a file `NAME.P` per picture, with t in the unit of the data and s = 1."""
        return {f"{PurePath(named.name).stem}.P": _content(named) for named in cameras}

    def write_cameras(self, data: Detection, cameras: Sequence[Camera]) -> dict[str, bytes]:
        """Return the files with new matrices; those of PMVS keep their first word."""
        contents = {}
        for file, camera in zip(data.camera_files, data.spread(cameras, len(data.camera_files)), strict=True):
            if camera is None:
                continue
            header = b"CONTOUR\n" if read_text(file).lstrip().startswith("CONTOUR") else b""
            name = str(file.relative_to(data.folder))
            contents[name] = header + _content(NamedCamera(file.name, camera))
        return contents


def _numbers(path: Path) -> str:
    return read_text(path).strip().removeprefix("CONTOUR")


def _camera(path: Path, width: int, height: int) -> Camera:
    P = to_matrix(str(path), _numbers(path), 3, 4)
    if is_scaled_rotation(P[:, :3]):
        raise ValueError(
            f"{path}: the matrix is [R | t] without K, expected K [R | t] in pixels; multiply it by K from the left"
        )
    with error_prefix(path):
        return Camera.from_projection(TO_CENTRES @ P, width, height)


def _content(named: NamedCamera) -> bytes:
    require_pinhole(named, ProjectionMatrices.title)
    P = torch.linalg.inv(TO_CENTRES) @ named.camera.matrix().detach().cpu().double()
    return join_rows(P).encode()

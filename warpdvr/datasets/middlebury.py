"""Read Middlebury multi-view stereo data, and write its cameras: `*_par.txt` beside the photographs.

File format: README.txt of the data sets at vision.middlebury.edu/mview (Seitz et al., CVPR 2006): the number of images,
then per line `name k11 .. k33 r11 .. r33 t1 t2 t3`, P = K [R | t], world to camera, OpenCV axes, origin top left.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.rotation import check_rotation
from warpdvr.datasets.camera_numbers import intrinsics, parameters_of, refuse, require_pinhole
from warpdvr.datasets.entries import Entry, Listing, NamedCamera
from warpdvr.datasets.files import error_prefix, find_subfolder, require_view_count
from warpdvr.datasets.formats import Detection, Format, ReadOptions
from warpdvr.datasets.gather import gather
from warpdvr.datasets.masks import match_masks
from warpdvr.datasets.textfiles import join_numbers
from warpdvr.datasets.views import Views
from warpdvr.runtime.files import path_inside


class Middlebury(Format):
    """`*_par.txt` with the name, K, R and t of each photograph.

    Depth maps in `depth/` are z-depth in units of the data, as `depthfile.read_depth_map` reads them.
    """

    title = "Middlebury"
    pattern = "*_par.txt"

    def read(self, data: Detection, options: ReadOptions) -> Views:
        """Return the data set with its object, located by the masks or the cameras, in the unit sphere."""
        path = data.choose()
        entries = _entries(path, options.min_views)
        masks, source = _masks(data.folder, path, [name for name, _ in entries])
        listing = Listing(
            tuple(
                Entry(name, partial(_camera, f"{path}: {name}", numbers), f"{path}: {name}", mask)
                for (name, numbers), mask in zip(entries, masks, strict=True)
            ),
            camera_file=path.name,
            conventions=(
                "K [R | t], pixel centres taken to be at integers (the format does not say; half a pixel added)"
            ),
            mask_source=source,
        )
        return gather(data, listing, options).views(data, options)

    def write_cameras(self, data: Detection, cameras: Sequence[Camera]) -> dict[str, bytes]:
        """Return the camera file with new R and t; K and the names of the photographs are kept."""
        path = data.choose()
        entries = _entries(path, 1)
        lines = [str(len(entries))]
        for (name, numbers), camera in zip(entries, data.spread(cameras, len(entries)), strict=True):
            if camera is not None:
                _, R, t = camera.krt()
                numbers = [*numbers[:9], *R.double().flatten().tolist(), *t.double().tolist()]
            lines.append(" ".join([name, *map(repr, numbers)]))
        return {path.name: "".join(f"{line}\n" for line in lines).encode()}

    def export(self, cameras: Sequence[NamedCamera]) -> dict[str, bytes]:
        """Return `views_par.txt`; names of pictures must be free of spaces."""
        lines = [str(len(cameras))]
        for named in cameras:
            require_pinhole(named, self.title)
            if " " in named.name:
                refuse(named, self.title, "belongs to a picture with a space in its name")
            p = parameters_of(named, self.title, skew=True)
            K = intrinsics(p.fx, p.fy, p.cx - 0.5, p.cy - 0.5, p.skew)
            lines.append(f"{named.name} {join_numbers(K)} {join_numbers(p.R)} {join_numbers(p.t)}")
        return {"views_par.txt": "".join(f"{line}\n" for line in lines).encode()}


def _entries(path: Path, min_views: int) -> list[tuple[str, list[float]]]:
    """Return the name of the photograph and 21 numbers per view."""
    try:
        first, *lines = [
            line.split() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()
        ] or [[]]
        n = int(first[0])
    except (UnicodeDecodeError, ValueError, IndexError) as error:
        raise ValueError(f"{path}: expected the number of images in the first line, found something else") from error
    if n != len(lines):
        raise ValueError(f"{path}: expected {n} lines of cameras, as the first line says, found {len(lines)}")
    require_view_count(path, n, min_views)
    return [(line[0], _numbers(path, line)) for line in lines]


def _numbers(path: Path, line: list[str]) -> list[float]:
    """Return the 21 numbers of a line."""
    if len(line) != 22:
        raise ValueError(
            f"{path}: {line[0]}: expected a name and 21 numbers, found {len(line) - 1} entries after the name"
        )
    with error_prefix(f"{path}: {line[0]}"):
        return [float(a) for a in line[1:]]


def _camera(source: str, numbers: list[float], width: int, height: int) -> Camera:
    """Return the camera of the numbers K, R and t; pixel centres move from integers to +0.5."""
    K, R = torch.tensor(numbers[:18], dtype=torch.float64).reshape(2, 3, 3)
    check_rotation(R, f"{source}: R is not a rotation")
    K[:2, 2] += 0.5
    with error_prefix(source):
        return Camera.from_krt(K, R, numbers[18:], width, height)


def _masks(folder: Path, camera_file: Path, names: list[str]) -> tuple[list[str | None], str]:
    """Return the masks with the name of their picture; if there is a list of good ones, only those in it."""
    good = _good_silhouettes(folder, camera_file, {Path(name).name for name in names})
    subfolder = find_subfolder(folder, "derived_masks", "mask", "masks")
    if subfolder is None:
        return [None] * len(names), "nowhere"
    pictures = [folder / name for name in names]
    found = zip(pictures, match_masks(pictures, subfolder, folder), strict=True)
    paths = [None if mask is None or f.name not in good else str(mask.relative_to(folder)) for f, mask in found]
    note = "" if len(good) == len(names) else ", those in the list of good silhouettes"
    return paths, f"{subfolder.name}/ (white = object{note})"


def _good_silhouettes(folder: Path, camera_file: Path, names: set[str]) -> set[str]:
    """Return the names of the pictures whose masks are good: those in the list, or all if there is none."""
    path = path_inside(folder, camera_file.name.replace("_par.txt", "_good_silhouette_images.txt"))
    if not path.is_file():
        return names
    with error_prefix(path):
        good = set(path.read_text(encoding="utf-8-sig").split())
    if not good <= names:
        raise ValueError(f"{path}: expected names of images in {camera_file.name}, found {sorted(good - names)[0]!r}")
    return good

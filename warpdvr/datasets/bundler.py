"""Read Bundler's output, and write its cameras: `bundle.out` and a list of pictures.

Layout as in Snavely's manual of Bundler 0.4, section "Output format": a comment, the numbers of cameras and points;
for each camera `f k1 k2`, R and t; for each point its position, its colour and the views that see it. Camera axes are
right, up, backwards (p = -P / P.z), pixels are counted from the centre of the picture, upwards, and the distortion is
r = 1 + k1 |p|^2 + k2 |p|^4. Cameras that were not found have f = 0. The pictures are listed in the order of the
cameras in `list.txt` or `bundle.rd.out.list.txt`, a name and perhaps more words in each line.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path, PureWindowsPath

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from warpdvr.cameras.camera import OPENGL, Camera
from warpdvr.datasets.camera_numbers import intrinsics, inverse_pose, make_camera, parameters_of, refuse, seen_by_none
from warpdvr.datasets.entries import Entry, Listing, NamedCamera
from warpdvr.datasets.formats import Detection, ReadOptions, inside
from warpdvr.datasets.lens_coefficients import Brown, brown_of
from warpdvr.datasets.listing import ListedFormat
from warpdvr.datasets.textfiles import join_numbers, join_rows, read_text, to_matrix, to_number, to_numbers
from warpdvr.runtime.files import path_inside

FLIP = OPENGL[:3, :3]
"""From camera axes right, up, backwards to right, down, forwards."""


class Bundler(ListedFormat):
    """`bundle.out` with `f k1 k2`, R and t of each camera, and `list.txt` with the names of the pictures."""

    title = "Bundler"
    pattern = "*.out"
    besides = "the points"

    def detect(self, folder: Path, cameras: str | None = None) -> Detection | None:
        """Return the folder with its `.out` files, in it or in `bundle/`, where Bundler writes them."""
        paths = (f for f in self.files(folder) if cameras in (None, f.name))
        chosen = tuple(f for f in inside(folder, paths) if f.is_file() and self.recognises(f))
        return Detection(self, folder, chosen) if chosen else None

    @property
    def globs(self) -> Sequence[str]:
        """The folder itself, and `bundle/`."""
        return self.pattern, f"bundle/{self.pattern}"

    def recognises(self, path: Path) -> bool:
        """Return whether the file begins as Bundler's do."""
        with path.open("rb") as file:
            return file.read(14).lower().startswith(b"# bundle file")

    def listing(self, data: Detection, options: ReadOptions) -> Listing:
        """Return the cameras with their pictures, and the points with the views that see them."""
        path = data.choose("bundle.out", "bundle.rd.out")
        words = " ".join(line for line in read_text(path).splitlines() if not line.startswith("#")).split()
        n, m = (int(count) for count in to_numbers(f"{path}: numbers of cameras and points", words[:2], 2))
        if n < 0 or m < 0 or len(words) < 2 + 15 * n + 7 * m:
            raise ValueError(f"{path}: expected {n} cameras and {m} points, found {len(words)} words in all")
        names = _names(data.folder, path, n)
        entries = []
        for i, name in enumerate(names):
            label = f"{path}: camera {i}"
            numbers = to_numbers(label, words[2 + 15 * i : 17 + 15 * i], 15)
            entries.append(Entry(name, partial(_camera, label, numbers), label))
        points, visible = _points(path, words[2 + 15 * n :], n, m)
        return Listing(
            tuple(entries),
            path.name,
            "f k1 k2, camera axes right, up, backwards, the principal point in the centre",
            points=points if m else None,
            visible=visible if m else None,
        )

    def export(self, cameras: Sequence[NamedCamera]) -> dict[str, bytes]:
        """Return `bundle.out` without points and `list.txt`."""
        lines = ["# Bundle file v0.3\n", f"{len(cameras)} 0\n", *map(_lines, cameras)]
        names = "".join(f"{named.name}\n" for named in cameras)
        return {"bundle.out": "".join(lines).encode(), "list.txt": names.encode()}


def _names(folder: Path, path: Path, n: int) -> list[str]:
    """Return the names of the pictures, without the folders that they lay in."""
    candidates = (path.with_name(f"{path.name}.list.txt"), path.with_name("list.txt"), folder / "list.txt")
    found = next((path_inside(folder, f.relative_to(folder)) for f in candidates if f.is_file()), None)
    if found is None:
        raise ValueError(f"{path}: expected the names of its pictures in list.txt, found no such file")
    lines = [line.split() for line in read_text(found).splitlines() if line.strip()]
    if len(lines) != n:
        raise ValueError(f"{found}: expected {n} names, one per camera of {path.name}, found {len(lines)}")
    return [PureWindowsPath(line[0]).name for line in lines]


def _camera(label: str, numbers: list[float], width: int, height: int) -> Camera:
    f, k1, k2 = numbers[:3]
    if f == 0:
        raise ValueError(f"{label}: the focal length is 0, Bundler did not find this camera")
    R = FLIP @ to_matrix(label, numbers[3:12], 3, 3)
    t = FLIP @ torch.tensor(numbers[12:], dtype=torch.float64)
    lens = Brown(k1=k1, k2=k2).projection()
    K = intrinsics(f, f, width / 2, height / 2)
    return make_camera(label, K, inverse_pose(label, R, t), (width, height), projection=lens)


def _points(path: Path, words: list[str], n: int, m: int) -> tuple[Float[Tensor, "m 3"], Bool[Tensor, "n m"]]:
    """Return the points, and which view sees which."""
    points, visible = torch.zeros(m, 3, dtype=torch.float64), seen_by_none(str(path), n, m)
    at = 0
    for j in range(m):
        label = f"{path}: point {j}"
        points[j] = torch.tensor(to_numbers(label, words[at : at + 3], 3), dtype=torch.float64)
        count = int(to_number(f"{label}: number of views", words[at + 6] if at + 6 < len(words) else None))
        views = [int(to_number(label, word)) for word in words[at + 7 : at + 7 + 4 * count : 4]]
        if count < 0 or len(views) != count or not all(0 <= view < n for view in views):
            raise ValueError(f"{label}: expected a list of {count} of the {n} views, found {views[:8]}")
        visible[views, j] = True
        at += 7 + 4 * count
    return points, visible


def _lines(named: NamedCamera) -> str:
    """Return the five lines of a camera."""
    p = parameters_of(named, Bundler.title, square=True, centred=True)
    brown = brown_of(named, Bundler.title)
    if brown.k3 or brown.p1 or brown.p2:
        refuse(named, Bundler.title, "has more distortion than k1 and k2")
    return f"{join_numbers([p.fx, brown.k1, brown.k2])}\n{join_rows(FLIP @ p.R)}{join_numbers(FLIP @ p.t)}\n"

"""Read NSVF data, and write its cameras: `intrinsics.txt` and `pose/*.txt` beside `rgb/`.

Layout as in facebookresearch/NSVF (README, "Dataset", and `load_intrinsics` in fairnr/data/data_utils.py):
`intrinsics.txt` holds a 4 x 4 (or 3 x 3) matrix K, or begins with a line `f cx cy 0`; each file in `pose/` holds a 4 x
4 matrix, camera to world, OpenCV axes, and has the name of its picture in `rgb/`. Names that begin with 0_, 1_ and 2_
are for training, validation and test, as in the authors' data; the README splits views by number instead. Pixel centres
are taken to be at +0.5, since the authors' renders have their principal point at half of the size. sxyu/svox2
(opt/util/nsvf_dataset.py) reads names and pixels in the same way; NSVF's own code counts pixels without the half
(`get_uv`).
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.datasets.camera_numbers import intrinsics, make_camera
from warpdvr.datasets.entries import Listing, NamedCamera
from warpdvr.datasets.formats import Detection, ReadOptions
from warpdvr.datasets.listing import ListedFormat
from warpdvr.datasets.pose_folder import list_poses, pose_contents
from warpdvr.datasets.textfiles import join_numbers, read_text, to_matrix, to_numbers

FOLDERS = ("rgb", "images", "image")
"""Where the pictures are looked for."""


class NSVF(ListedFormat):
    """`intrinsics.txt` and `pose/*.txt`: one K for all pictures, and a pose, camera to world, OpenCV axes, for each."""

    title = "NSVF"
    pattern = "intrinsics.txt"

    def recognises(self, path: Path) -> bool:
        """Return whether there are poses beside the file."""
        return any((path.parent / "pose").glob("*.txt"))

    def listing(self, data: Detection, options: ReadOptions) -> Listing:
        """Return a view per file in `pose/`; those that begin with 1_ or 2_ are held out, if there are any."""
        path = data.choose()
        K = _intrinsics(path)
        views = list_poses(data.folder, FOLDERS, ".png", partial(_camera, K))
        split = any(re.match("[12]_", view.picture) for view in views)
        entries = [replace(view, held_out=view.picture[:2] in ("1_", "2_") if split else None) for view in views]
        words = "camera to world, OpenCV axes, pixel centres taken to be at +0.5 (the format does not say)"
        return Listing(tuple(entries), "intrinsics.txt and pose/", words, FOLDERS)

    def export(self, cameras: Sequence[NamedCamera]) -> dict[str, bytes]:
        """Return `intrinsics.txt` and a pose per picture, by its name; the intrinsics are the same for all."""
        return pose_contents(cameras, self.title, "intrinsics.txt")


def _intrinsics(path: Path) -> Float[Tensor, "3 3"]:
    """Return K of either kind of file."""
    text = read_text(path)
    words = text.split()
    if len(words) in (9, 16):
        n = 3 if len(words) == 9 else 4
        K = to_matrix(str(path), text, n, n)[:3, :3]
        if K.tril(-1).abs().max() > 0 or K[2, 2] != 1:
            raise ValueError(f"{path}: expected a matrix K that ends in 1, found {join_numbers(K)}")
        return K
    first = next((line for line in text.splitlines() if line.strip()), "")
    f, cx, cy, _ = to_numbers(f"{path}: first line", first, 4)
    return intrinsics(f, f, cx, cy)


def _camera(K: Float[Tensor, "3 3"], path: Path, width: int, height: int) -> Camera:
    return make_camera(str(path), K, to_matrix(str(path), read_text(path), 4, 4), (width, height))

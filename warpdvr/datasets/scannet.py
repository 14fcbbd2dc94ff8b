"""Read ScanNet data, and write its cameras: `pose/*.txt` and `intrinsic/intrinsic_color.txt` beside `color/`.

Layout as in ScanNet/ScanNet (SensReader/python/SensorData.py, which writes it): `intrinsic_color.txt` holds a 4 x 4
matrix K for the pictures in `color/`; `pose/0.txt` is the 4 x 4 matrix of `color/0.jpg`, camera to world, OpenCV axes,
in metres. Poses that tracking lost are filled with -inf: these views have no camera. Pixel centres are not defined;
they are taken to be at integers, as for other sensors that OpenCV calibrates. The depth in `depth/` belongs to another
camera, of another size, and is not read.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePath

import torch
from jaxtyping import Float
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.datasets.camera_numbers import intrinsics, make_camera, parameters_of, require_pinhole, require_shared
from warpdvr.datasets.entries import Entry, Listing, NamedCamera
from warpdvr.datasets.formats import Detection, ReadOptions
from warpdvr.datasets.listing import ListedFormat
from warpdvr.datasets.nsvf import picture_names, pose_files
from warpdvr.datasets.textfiles import join_rows, read_text, to_matrix
from warpdvr.runtime.files import path_inside

FOLDERS = ("color", "images", "image", "rgb")
"""Where the pictures are looked for."""


class ScanNet(ListedFormat):
    """`pose/*.txt`, camera to world, and `intrinsic/intrinsic_color.txt`, one K for all pictures."""

    title = "ScanNet"
    pattern = "intrinsic/intrinsic_color.txt"
    depth_of_pictures = False

    def recognises(self, path: Path) -> bool:
        """Return whether there are poses in the folder."""
        return any((path.parent.parent / "pose").glob("*.txt"))

    def listing(self, data: Detection, options: ReadOptions) -> Listing:
        """Return a view per file in `pose/`; the camera of a lost pose raises a sentence that says so."""
        path = path_inside(data.folder, self.pattern)
        K = to_matrix(str(path), read_text(path), 4, 4)[:3, :3]
        K[:2, 2] += 0.5
        names = picture_names(data.folder, FOLDERS)
        entries = [
            Entry(
                names.get(file.stem, f"{file.stem}.jpg"),
                partial(_camera, path_inside(data.folder, file.relative_to(data.folder)), K),
                str(file),
            )
            for file in pose_files(data.folder)
        ]
        words = "camera to world, OpenCV axes, pixel centres taken to be at integers (the format does not say)"
        return Listing(tuple(entries), "pose/ and intrinsic/intrinsic_color.txt", words, FOLDERS)

    def export(self, cameras: Sequence[NamedCamera]) -> dict[str, bytes]:
        """Return K, the same for all pictures, and a pose per picture, by its name."""
        require_shared(cameras, self.title)
        K, files = torch.eye(4, dtype=torch.float64), {}
        for named in cameras:
            require_pinhole(named, self.title)
            p = parameters_of(named, self.title, skew=True)
            K[:3, :3] = intrinsics(p.fx, p.fy, p.cx - 0.5, p.cy - 0.5, p.skew)
            files[f"pose/{PurePath(named.name).stem}.txt"] = join_rows(p.pose).encode()
        return {self.pattern: join_rows(K).encode(), **files}


def _camera(path: Path, K: Float[Tensor, "3 3"], width: int, height: int) -> Camera:
    text = read_text(path)
    if "inf" in text.lower() or "nan" in text.lower():
        raise ValueError(f"{path}: the pose holds numbers that are not finite, tracking was lost at this picture")
    return make_camera(str(path), K, to_matrix(str(path), text, 4, 4), (width, height))

"""Read ScanNet data, and write its cameras: `pose/*.txt` and `intrinsic/intrinsic_color.txt` beside `color/`.

Layout as in ScanNet/ScanNet (SensReader/python/SensorData.py, which writes it): `intrinsic_color.txt` holds a 4 x 4
matrix K for the pictures in `color/`; `pose/0.txt` is the 4 x 4 `camera_to_world` of `color/0.jpg`, OpenCV axes, in
metres. Poses that tracking lost are filled with -inf: these views have no camera. Pixel centres are not defined; they
are taken to be at integers, as for other sensors that OpenCV calibrates. The depth in `depth/` belongs to another
camera, of another size, and is not read.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.datasets.camera_numbers import make_camera
from warpdvr.datasets.entries import Listing, NamedCamera
from warpdvr.datasets.formats import Detection, ReadOptions
from warpdvr.datasets.listing import ListedFormat
from warpdvr.datasets.pose_folder import list_poses, pose_contents
from warpdvr.datasets.textfiles import read_text, to_matrix
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
        entries = list_poses(data.folder, FOLDERS, ".jpg", partial(_camera, K))
        words = "camera to world, OpenCV axes, pixel centres taken to be at integers (the format does not say)"
        return Listing(tuple(entries), "pose/ and intrinsic/intrinsic_color.txt", words, FOLDERS)

    def export(self, cameras: Sequence[NamedCamera]) -> dict[str, bytes]:
        """Return K, the same for all pictures, and a pose per picture, by its name."""
        return pose_contents(cameras, self.title, self.pattern, offset=-0.5)


def _camera(K: Float[Tensor, "3 3"], path: Path, width: int, height: int) -> Camera:
    text = read_text(path)
    if "inf" in text.lower() or "nan" in text.lower():
        raise ValueError(f"{path}: the pose holds numbers that are not finite, tracking was lost at this picture")
    return make_camera(str(path), K, to_matrix(str(path), text, 4, 4), (width, height))

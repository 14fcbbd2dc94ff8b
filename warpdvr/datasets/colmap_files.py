"""Read and write the files of a COLMAP model: cameras, images and points3D, binary (.bin) or text (.txt).

The layout is that of COLMAP's documentation ("Output Format") and of src/colmap/scene/reconstruction_io_binary.cc and
reconstruction_io_text.cc; COLMAP 4 stores the same three files, and the poses of rigs in `frames` beside them. All
numbers are little-endian. A file is read whole, so that nothing larger than it is ever allocated.
"""

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from warpdvr.cameras.colmap_models import COLMAP_MODELS
from warpdvr.datasets.files import error_prefix
from warpdvr.runtime.parsing import read_bytes, read_text

MODELS = {**COLMAP_MODELS, 17: ("EQUIRECTANGULAR", 2)}
"""Name and number of parameters of each camera model, by its number in binary files."""


class StoredCamera(NamedTuple):
    """A line of `cameras`."""

    model: str
    width: int
    height: int
    params: tuple[float, ...]


class StoredImage(NamedTuple):
    """A photograph of `images`."""

    number: int
    """IMAGE_ID, which the points refer to."""
    pose: tuple[float, ...]
    """World to camera, OpenCV axes: quaternion w, x, y, z, then the translation."""
    camera: int
    """CAMERA_ID."""
    name: str
    place: int
    """Where its pose is stored: a byte in a binary file, a line (from 0) in a text file."""


class Cursor:
    """A place in a binary file, which never moves beyond its end."""

    def __init__(self, path: Path) -> None:
        self.path, self.data, self.place = path, read_bytes(path, "a file of COLMAP"), 0

    def take(self, layout: str) -> tuple[int | float, ...]:
        """Return the next little-endian numbers.

        Raises:
            ValueError: if the file ends before.
        """
        start = self.skip(struct.calcsize("<" + layout))
        return struct.unpack_from("<" + layout, self.data, start)

    def skip(self, size: int) -> int:
        """Move on by `size` bytes, and return the place before.

        Raises:
            ValueError: if the file ends before.
        """
        start, self.place = self.place, self.place + size
        if self.place > len(self.data):
            raise ValueError(f"{self.path}: the file is cut off or damaged: it ends after {len(self.data)} bytes")
        return start

    def count(self, smallest: int) -> int:
        """Return the next number, a count of things of at least `smallest` bytes each.

        Raises:
            ValueError: if there is no room for so many in the file.
        """
        n = int(self.take("Q")[0])
        if n * smallest > len(self.data) - self.place:
            raise ValueError(
                f"{self.path}: the file is cut off or damaged: it claims {n} entries, but ends after "
                f"{len(self.data)} bytes"
            )
        return n

    def name(self) -> str:
        """Return the next text, which ends with a zero byte.

        Raises:
            ValueError: if it does not end, or is no UTF-8.
        """
        end = self.data.find(b"\0", self.place)
        if end < 0:
            raise ValueError(f"{self.path}: the file is cut off or damaged: the name of an image does not end")
        start = self.skip(end + 1 - self.place)
        with error_prefix(f"{self.path}: the name of an image"):
            return self.data[start:end].decode("utf-8")


def read_stored_cameras(path: Path) -> dict[int, StoredCamera]:
    """Return the cameras by CAMERA_ID.

    Raises:
        ValueError: if the file is damaged, or a camera model is unknown.
    """
    if path.suffix == ".txt":
        return dict(_camera_of_line(path, i, line) for i, line in _lines(path))
    cursor, cameras = Cursor(path), {}
    for _ in range(cursor.count(24)):
        number, model, width, height = map(int, cursor.take("IiQQ"))
        if model not in MODELS:
            raise ValueError(
                f"{path}: camera {number}: unknown camera model {model}, known are 0 to {max(MODELS)}; undistort "
                "the images with `colmap image_undistorter`"
            )
        name, n = MODELS[model]
        cameras[number] = StoredCamera(name, width, height, cursor.take(f"{n}d"))
    return cameras


def read_stored_images(path: Path) -> list[StoredImage]:
    """Return the images in the order of the file; their 2D points are skipped.

    Raises:
        ValueError: if the file is damaged.
    """
    if path.suffix == ".txt":
        return list(_images_of_text(path))
    cursor, images = Cursor(path), []
    for _ in range(cursor.count(73)):
        number, *pose, camera = cursor.take("I7dI")
        place = cursor.place - struct.calcsize("<7dI")
        images.append(StoredImage(int(number), tuple(pose), int(camera), cursor.name(), place))
        cursor.skip(24 * cursor.count(24))
    return images


def read_stored_points(path: Path) -> tuple[Float[np.ndarray, "m 3"], list[NDArray[np.int64]]]:
    """Return the finite points, float64, and for each the IMAGE_ID of the images that see it.

    Raises:
        ValueError: if the file is damaged.
    """
    points, tracks = [], []
    for x, track in _points_of_text(path) if path.suffix == ".txt" else _points_of_bytes(Cursor(path)):
        if np.isfinite(x).all():
            points.append(x)
            tracks.append(track)
    return np.array(points, np.float64).reshape(-1, 3), tracks


def replace_poses(path: Path, places: Sequence[int], poses: Sequence[Sequence[float]]) -> bytes:
    """Return the content of an `images` or `frames` file with new poses at those places, all else kept."""
    if path.suffix == ".bin":
        buffer = bytearray(path.read_bytes())
        for place, pose in zip(places, poses, strict=True):
            struct.pack_into("<7d", buffer, place, *pose)
        return bytes(buffer)
    lines = _text(path).split("\n")
    first = 1 if path.stem == "images" else 2  # IMAGE_ID, or FRAME_ID and RIG_ID
    for place, pose in zip(places, poses, strict=True):
        words = lines[place].split(maxsplit=first + 7)
        lines[place] = " ".join([*words[:first], *map(repr, pose), *words[first + 7 :]])
    return "\n".join(lines).encode()


def read_frames(path: Path) -> dict[int, tuple[int, tuple[float, ...]]]:
    """Return where a `frames` file of COLMAP 4 stores the pose of each image, and that pose, by IMAGE_ID.

    Raises:
        ValueError: if the file is damaged, or a frame holds several images: then its pose is that of a rig.
    """
    frames: list[tuple[list[int], int, tuple[float, ...]]] = []
    if path.suffix == ".txt":
        for i, line in _lines(path):
            words = line.split()
            with error_prefix(f"{path}: line {i + 1}"):
                frames.append(([int(word) for word in words[12::3]], i, tuple(map(float, words[2:9]))))
    else:
        cursor = Cursor(path)
        for _ in range(cursor.count(68)):
            cursor.skip(8)  # FRAME_ID and RIG_ID
            place, pose = cursor.place, cursor.take("7d")
            images = [int(cursor.take("iIQ")[2]) for _ in range(int(cursor.take("I")[0]))]
            frames.append((images, place, pose))
    if any(len(images) != 1 for images, _, _ in frames):
        raise ValueError(f"{path}: poses cannot be replaced where several cameras make up a rig; export them instead")
    return {images[0]: (place, pose) for images, place, pose in frames}


def model_bytes(
    cameras: Sequence[StoredCamera], images: Sequence[tuple[Sequence[float], int, str]]
) -> dict[str, bytes]:
    """Return a binary model without points: its cameras, and pose, index of the camera and name of each image."""
    numbers = {name: number for number, (name, _) in MODELS.items()}
    records = [
        struct.pack(f"<IiQQ{len(c.params)}d", i + 1, numbers[c.model], c.width, c.height, *c.params)
        for i, c in enumerate(cameras)
    ]
    photographs = [
        struct.pack("<I7dI", i + 1, *pose, camera + 1) + name.encode() + b"\0" + struct.pack("<Q", 0)
        for i, (pose, camera, name) in enumerate(images)
    ]
    tables = {"cameras.bin": records, "images.bin": photographs, "points3D.bin": []}
    return {name: struct.pack("<Q", len(table)) + b"".join(table) for name, table in tables.items()}


def _text(path: Path) -> str:
    return read_text(path, "a text file of COLMAP")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text file that hold something, with their indices."""
    for i, line in enumerate(_text(path).split("\n")):
        if line.strip() and not line.lstrip().startswith("#"):
            yield i, line


def _camera_of_line(path: Path, i: int, line: str) -> tuple[int, StoredCamera]:
    number, model, width, height, *params = [*line.split(), *[""] * 4][: max(4, len(line.split()))]
    known = dict(MODELS.values())
    if model not in known or len(params) != known[model]:
        raise ValueError(
            f"{path}: line {i + 1}: expected CAMERA_ID, MODEL, WIDTH, HEIGHT and the parameters of a camera model such "
            f"as OPENCV with 8, found {line.strip()[:80]!r}"
        )
    with error_prefix(f"{path}: line {i + 1}"):
        return int(number), StoredCamera(model, int(float(width)), int(float(height)), tuple(map(float, params)))


def _images_of_text(path: Path) -> Iterator[StoredImage]:
    """Yield the images of a text file: two lines for each, the second one, the 2D points, may be empty or missing."""
    lines = _text(path).split("\n")
    i = 0
    while i < len(lines):
        words = lines[i].split(maxsplit=9)
        if words and not words[0].startswith("#"):
            if len(words) != 10:
                raise ValueError(
                    f"{path}: line {i + 1}: expected IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID and NAME, found "
                    f"{lines[i].strip()[:80]!r}"
                )
            with error_prefix(f"{path}: line {i + 1}"):
                pose = tuple(map(float, words[1:8]))
                yield StoredImage(int(words[0]), pose, int(words[8]), words[9].strip(), i)
            i += _holds_points(lines[i + 1]) if i + 1 < len(lines) else 0
        i += 1


def _holds_points(line: str) -> bool:
    """Return whether a line is that of the 2D points: it is empty, or ends with the number of a point."""
    last = line.rsplit(maxsplit=1)[-1:]
    return not last or last[0].lstrip("-").isdigit()


def _points_of_text(path: Path) -> Iterator[tuple[NDArray[np.float64], NDArray[np.int64]]]:
    for i, line in _lines(path):
        words = line.split()
        if len(words) < 8:
            raise ValueError(f"{path}: line {i + 1}: expected POINT3D_ID, X, Y, Z, R, G, B, ERROR and the track")
        with error_prefix(f"{path}: line {i + 1}"):
            yield np.array(words[1:4], np.float64), np.array(words[8::2], np.int64)


def _points_of_bytes(cursor: Cursor) -> Iterator[tuple[NDArray[np.float64], NDArray[np.int64]]]:
    for _ in range(cursor.count(51)):
        x = np.array(cursor.take("Q3d3Bd")[1:4], np.float64)
        n = cursor.count(8)
        yield x, np.frombuffer(cursor.data, "<u4", 2 * n, cursor.skip(8 * n))[::2].astype(np.int64)

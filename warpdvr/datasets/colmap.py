"""Read and write COLMAP models: `sparse/0`, `sparse`, or cameras, images and points3D in the folder itself.

World to camera with OpenCV axes, a quaternion w, x, y, z and a translation, pixel centres at +0.5 (COLMAP's
documentation, "Output Format"). Of several models the largest is read. The photographs are in `images/`. Points come
with the views that see them. Cameras are written as a binary model in `sparse/0`, without points.
"""

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.colmap_models import colmap_model, colmap_projection
from warpdvr.datasets.calibration import Calibration, describe_scaling
from warpdvr.datasets.colmap_files import (
    StoredCamera,
    StoredImage,
    model_bytes,
    read_frames,
    read_stored_cameras,
    read_stored_images,
    read_stored_points,
    replace_poses,
)
from warpdvr.datasets.files import error_prefix
from warpdvr.datasets.formats import Detection, ReadOptions, inside
from warpdvr.datasets.listing import Entry, ListedFormat, Listing, NamedCamera, read_listing
from warpdvr.datasets.views import Views
from warpdvr.runtime.files import path_inside

FOLDERS = ("sparse/*", "sparse", "colmap/sparse/*", "colmap/sparse", ".")
"""Where models are looked for, relative to the data set."""

PICTURES = ("images", "image", "input", "", "images_2", "images_4", "images_8")
"""Where photographs are looked for: COLMAP's habit, then that of those who train on its models."""

VISIBLE = 2**28
"""At most so many pairs of a view and a point are kept; of more points every second, third, ... is."""


class COLMAP(ListedFormat):
    """A sparse model of COLMAP, binary or text, of version 3 or 4."""

    title = "COLMAP"
    pattern = "cameras.*"

    def detect(self, folder: Path, cameras: str | None = None) -> Detection | None:
        """Return the folder with the `cameras` files of its models, or with a database alone; None if it has neither.

        Args:
            folder: the data set.
            cameras: consider only models in this folder, such as "sparse/1", or camera files of this name.
        """
        files = [f for place in FOLDERS for f in sorted(folder.glob(f"{place}/cameras.*")) if _is_model(f, folder)]
        if cameras is not None:
            files = [f for f in files if cameras in (f.name, f.parent.relative_to(folder).as_posix())]
        elif not files:
            files = [f for place in (".", "colmap") for f in sorted(folder.glob(f"{place}/*.db"))]
            files = [f for f in inside(folder, files) if _is_database(f)]
        return Detection(self, folder, tuple(files)) if files else None

    def listing(self, data: Detection, options: ReadOptions) -> Listing:
        """Return the images of the largest model, sorted by name."""
        model, note = _choose_model(data)
        cameras = read_stored_cameras(_file(data.folder, model, "cameras"))
        if any(camera.model == "EQUIRECTANGULAR" for camera in cameras.values()):
            raise ValueError(
                f"{model}: the photographs are panoramas (EQUIRECTANGULAR), which have no image plane; cut them into "
                "perspective views first, for instance with COLMAP's panorama_sfm.py"
            )
        path = _file(data.folder, model, "images")
        images = _sorted(path)
        points, visible, thinned = _points(data.folder, model, images)
        models = sorted({camera.model for camera in cameras.values()})
        return Listing(
            tuple(_entry(path, image, cameras) for image in images),
            camera_file=path.parent.relative_to(data.folder).as_posix() + note,
            conventions=f"{', '.join(models)}, OpenCV axes, pixel centres at +0.5{thinned}",
            pictures=PICTURES,
            points=points,
            visible=visible,
        )

    def read(self, data: Detection, options: ReadOptions) -> Views:
        """Return the data set with its object, located by the masks or the cameras, in the unit sphere."""
        views = read_listing(data, self.listing(data, options), options)
        stored = read_stored_cameras(_file(data.folder, _choose_model(data)[0], "cameras"))
        return describe_scaling(views, [camera.width for camera in stored.values()])

    def export(self, cameras: Sequence[NamedCamera]) -> dict[str, bytes]:
        """Return a binary model without points, with one camera for all views whose intrinsics are equal."""
        stored: dict[StoredCamera, int] = {}
        images = []
        for named in cameras:
            with error_prefix(f"the camera of {named.name}"):
                model, params = colmap_model(named.camera)
            camera = StoredCamera(model, named.camera.width, named.camera.height, tuple(map(float, params)))
            images.append((_world_to_camera(named.camera), stored.setdefault(camera, len(stored)), named.name))
        return {f"sparse/0/{name}": content for name, content in model_bytes([*stored], images).items()}

    def write_cameras(self, data: Detection, cameras: Sequence[Camera]) -> dict[str, bytes]:
        """Return `images`, and `frames` of COLMAP 4, with new poses; cameras, names and points are kept."""
        model, _ = _choose_model(data)
        path = _file(data.folder, model, "images")
        images = _sorted(path)
        spread = data.spread(cameras, len(images))
        images = [image for image, camera in zip(images, spread, strict=True) if camera is not None]
        poses = [_world_to_camera(camera) for camera in spread if camera is not None]
        contents = {path: replace_poses(path, [image.place for image in images], poses)}
        frames_path = path.with_stem("frames")
        if frames_path.is_file():
            frames = read_frames(path_inside(data.folder, frames_path.relative_to(data.folder)))
            _require_own_frames(frames_path, frames, images)
            contents[frames_path] = replace_poses(frames_path, [frames[image.number][0] for image in images], poses)
        return {f.relative_to(data.folder).as_posix(): content for f, content in contents.items()}


def _is_model(path: Path, folder: Path) -> bool:
    """Return whether a `cameras` file is that of a model; in the data set itself only one beside `images`."""
    beside = path.parent != folder or path.with_stem("images").is_file()
    return path.suffix in (".bin", ".txt") and path.is_file() and beside


def _is_database(path: Path) -> bool:
    """Return whether a file is a database of SQLite, as Windows' Thumbs.db is not."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(16) == b"SQLite format 3\0"


def _choose_model(data: Detection) -> tuple[Path, str]:
    """Return the folder of the model with the most images, and what to say about the others.

    Raises:
        ValueError: if there is a database alone, or a link leads out of the data set.
    """
    folders = list(dict.fromkeys(f.parent for f in data.camera_files))
    if data.camera_files[0].suffix == ".db":
        name = data.camera_files[0].relative_to(data.folder)
        raise ValueError(
            f"{data.camera_files[0]}: COLMAP's database holds features and matches, but no cameras; run `colmap mapper "
            f"--database_path {name} --image_path images --output_path sparse` in {data.folder} first"
        )
    if len(folders) == 1:
        return folders[0], ""
    counts = {folder: _count_images(_file(data.folder, folder, "images")) for folder in folders}
    largest = max(folders, key=lambda folder: counts[folder])
    others = ", ".join(f"{f.relative_to(data.folder)} with {counts[f]}" for f in folders if f != largest)
    return largest, f" (the largest model, {counts[largest]} images; left out: {others})"


def _file(folder: Path, model: Path, stem: str) -> Path:
    """Return a file of a model: binary if cameras and images are, as COLMAP chooses, else text."""
    binary = all((model / f"{name}.bin").is_file() for name in ("cameras", "images"))
    path = path_inside(folder, (model / f"{stem}{'.bin' if binary else '.txt'}").relative_to(folder))
    if stem != "points3D" and not path.is_file():
        raise ValueError(f"{model}: expected cameras and images, both .bin or both .txt, found no {path.name}")
    return path


def _count_images(path: Path) -> int:
    if path.suffix == ".txt":
        return len(read_stored_images(path))
    with path.open("rb") as file:
        return int(struct.unpack("<Q", file.read(8).ljust(8, b"\0"))[0])


def _sorted(path: Path) -> list[StoredImage]:
    return sorted(read_stored_images(path), key=lambda image: image.name)


def _entry(path: Path, image: StoredImage, cameras: dict[int, StoredCamera]) -> Entry:
    """Return an image as a view; what is wrong with it is kept for the message."""
    label = f"{path}: {image.name}"
    try:
        if image.camera not in cameras:
            raise ValueError(f"its camera {image.camera} is missing in {path.with_stem('cameras').name}")
        stored = cameras[image.camera]
        K, projection = colmap_projection(stored.model, stored.params)
        camera = Calibration(K, _camera_to_world(image.pose), stored.width, stored.height, label, projection)
    except ValueError as error:
        return Entry(image.name, _no_camera, label, broken=f"{label}: {error}")
    return Entry(image.name, camera, label)


def _no_camera(width: int, height: int) -> Camera:
    raise ValueError("the view is damaged")


def _camera_to_world(pose: Sequence[float]) -> Float[Tensor, "4 4"]:
    """Return the pose of a camera from a quaternion of any length and a translation, world to camera."""
    numbers = torch.tensor(pose, dtype=torch.float64)
    length = numbers[:4].norm()
    if not numbers.isfinite().all() or length == 0:
        raise ValueError(f"expected a finite pose with a quaternion other than 0, found {list(pose)}")
    w, x, y, z = (numbers[:4] / length).tolist()
    cross = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
    R = torch.eye(3, dtype=torch.float64) + 2 * w * cross + 2 * cross @ cross
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3], matrix[:3, 3] = R.T, -R.T @ numbers[4:]
    return matrix


def _world_to_camera(camera: Camera) -> tuple[float, ...]:
    """Return quaternion and translation; the quaternion is the main axis of Bar-Itzhack's symmetric matrix (2000)."""
    _, R, t = (a.double() for a in camera.krt())
    S = torch.empty(4, 4, dtype=torch.float64)
    S[0, 0] = R.trace()
    S[1:, 1:] = R + R.T - R.trace() * torch.eye(3).to(R)
    S[0, 1:] = S[1:, 0] = torch.stack([R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]])
    q = torch.linalg.eigh(S)[1][:, -1]
    return (*(-q if q[0] < 0 else q).tolist(), *t.tolist())


def _points(
    folder: Path, model: Path, images: Sequence[StoredImage]
) -> tuple[Float[Tensor, "m 3"] | None, Tensor | None, str]:
    """Return the points, which image sees which, and what to say if some are left out; None without points."""
    path = _file(folder, model, "points3D")
    if not path.is_file():
        return None, None, ""
    points, tracks = read_stored_points(path)
    step = 1 + len(points) * len(images) // VISIBLE
    points, tracks = points[::step], tracks[::step]
    if len(points) == 0:
        return None, None, ""
    rows = {image.number: i for i, image in enumerate(images)}
    visible = np.zeros((len(images), len(points)), bool)
    for column, track in enumerate(tracks):
        visible[[rows[number] for number in track.tolist() if number in rows], column] = True
    thinned = "" if step == 1 else f", one point in {step} read"
    return torch.from_numpy(points), torch.from_numpy(visible), thinned


def _require_own_frames(
    path: Path, frames: dict[int, tuple[int, tuple[float, ...]]], images: Sequence[StoredImage]
) -> None:
    """Raise ValueError if a frame's pose is that of a rig, not of its only camera."""
    for image in images:
        pose = frames[image.number][1] if image.number in frames else ()
        if len(pose) != 7 or not np.allclose(pose, image.pose, rtol=1e-6, atol=1e-9):
            raise ValueError(
                f"{path}: the pose of {image.name} is that of a rig and cannot be replaced; export instead"
            )

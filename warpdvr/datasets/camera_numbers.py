"""From the numbers of a camera file to a camera, and back: sizes, axes, lenses, and what a format cannot hold."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from warpdvr.cameras.camera import OPENGL, Camera
from warpdvr.cameras.projection import PINHOLE, Pinhole, Projection
from warpdvr.cameras.rotation import check_rotation
from warpdvr.datasets.calibration import Calibration
from warpdvr.datasets.entries import NamedCamera
from warpdvr.datasets.files import sort_by_number


def intrinsics(fx: float, fy: float, cx: float, cy: float, skew: float = 0.0) -> Float[Tensor, "3 3"]:
    """Return K [pixel], float64."""
    return torch.tensor([[fx, skew, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]], dtype=torch.float64)


def make_camera(
    label: str,
    K: Float[Tensor, "3 3"],
    pose: Float[Tensor, "rows 4"],
    size: tuple[int, int],
    *,
    stored: tuple[float, float] | None = None,
    projection: Projection = PINHOLE,
) -> Camera:
    """Return the camera of a picture.

    Args:
        label: file and view, for messages.
        K: intrinsics for pictures of `stored` size, pixel centres at +0.5.
        pose: camera to world, OpenCV axes, 3 or 4 rows.
        size: width and height of the picture [pixel].
        stored: those of the file; K is scaled if the picture has another size, but the same shape.
        projection: the lens.

    Raises:
        ValueError: if the picture has another shape, the pose is no rotation, or a focal length is not positive.
    """
    if not (K[0, 0] > 0 and K[1, 1] > 0):
        raise ValueError(
            f"{label}: expected a positive focal length, found {K[0, 0]:g} and {K[1, 1]:g}; there is no camera for "
            "this picture"
        )
    full = torch.eye(4, dtype=torch.float64)
    full[:3] = pose[:3]
    _check_rotation(label, full)
    width, height = stored or size
    return Calibration(K, full, width, height, label, projection)(*size)


def inverse_pose(label: str, R: Float[Tensor, "3 3"], t: Float[Tensor, "3"]) -> Float[Tensor, "4 4"]:
    """Return the pose, camera to world, of x_camera = R x_world + t.

    Raises:
        ValueError: if R is no rotation.
    """
    world = torch.eye(4, dtype=torch.float64)
    world[:3, :3], world[:3, 3] = R, t
    _check_rotation(label, world)
    pose: Tensor = torch.linalg.inv(world)
    return pose


def from_opengl(pose: Float[Tensor, "rows 4"]) -> Float[Tensor, "rows 4"]:
    """Return a pose, camera to world, with OpenCV axes from one with OpenGL axes, and back."""
    turned: Tensor = pose @ OPENGL
    return turned


def from_quaternion(label: str, qx: float, qy: float, qz: float, qw: float) -> Float[Tensor, "3 3"]:
    """Return the rotation of a quaternion, which is normalised first.

    Raises:
        ValueError: if it is zero.
    """
    length = math.sqrt(qx * qx + qy * qy + qz * qz + qw * qw)
    if not 1e-6 < length < math.inf:
        raise ValueError(f"{label}: expected a quaternion of a rotation, found {[qx, qy, qz, qw]}")
    x, y, z, w = qx / length, qy / length, qz / length, qw / length
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.tensor(rows, dtype=torch.float64)


def to_quaternion(R: Float[Tensor, "3 3"]) -> tuple[float, float, float, float]:
    """Return the quaternion (qx, qy, qz, qw) of a rotation, by the eigenvector of its largest eigenvalue.

    Bar-Itzhack, "New method for extracting the quaternion from a rotation matrix", 2000.
    """
    r = R.double()
    rows = [
        [r[0, 0] - r[1, 1] - r[2, 2], r[1, 0] + r[0, 1], r[2, 0] + r[0, 2], r[2, 1] - r[1, 2]],
        [r[1, 0] + r[0, 1], r[1, 1] - r[0, 0] - r[2, 2], r[2, 1] + r[1, 2], r[0, 2] - r[2, 0]],
        [r[2, 0] + r[0, 2], r[2, 1] + r[1, 2], r[2, 2] - r[0, 0] - r[1, 1], r[1, 0] - r[0, 1]],
        [r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1], r[0, 0] + r[1, 1] + r[2, 2]],
    ]
    q = torch.linalg.eigh(torch.tensor(rows, dtype=torch.float64))[1][:, 3]
    qx, qy, qz, qw = (q * (1.0 if q[3] >= 0 else -1.0)).tolist()
    return qx, qy, qz, qw


def refuse_equirectangular(label: str, found: str) -> NoReturn:
    """Raise ValueError: panoramas are no pictures of one camera.

    Raises:
        ValueError: always.
    """
    raise ValueError(
        f"{label}: expected pictures of a lens, found {found}; cut the panoramas into perspective pictures first, for "
        "instance the six faces of a cube, and give each its own camera"
    )


@dataclass(frozen=True)
class Parameters:
    """A camera in the numbers that files hold."""

    fx: float
    fy: float
    cx: float
    cy: float
    skew: float
    width: int
    height: int
    pose: Float[Tensor, "4 4"]
    """Camera to world, OpenCV axes."""
    R: Float[Tensor, "3 3"]
    """World to camera."""
    t: Float[Tensor, "3"]


def parameters_of(
    named: NamedCamera, title: str, *, skew: bool = False, square: bool = False, centred: bool = False
) -> Parameters:
    """Return the numbers of a pinhole, or of a lens in front of one.

    Args:
        named: the camera.
        title: the format, for messages.
        skew: the format can hold skew.
        square: it has one focal length for both axes.
        centred: its principal point is the centre of the picture.

    Raises:
        ValueError: if the format cannot hold the camera.
    """
    K, R, t = (a.detach().cpu().double() for a in named.camera.krt())
    w, h = named.camera.width, named.camera.height
    (fx, s, cx), (_, fy, cy), _ = K.tolist()
    if not skew and abs(s) > 1e-9 * fx:
        refuse(named, title, f"has skew ({s:.6g} pixels)")
    if square and abs(fx - fy) > 1e-9 * fx:
        refuse(named, title, f"has two focal lengths ({fx:.6g} and {fy:.6g} pixels)")
    if centred and max(abs(cx - w / 2), abs(cy - h / 2)) > 1e-7:
        refuse(named, title, f"has its principal point at ({cx:.6g}, {cy:.6g}), not at the centre of the picture")
    return Parameters(fx, fy, cx, cy, s, w, h, named.camera.pose.detach().cpu().double(), R, t)


def require_pinhole(named: NamedCamera, title: str) -> None:
    """Raise ValueError if a camera has a lens with distortion, or is no perspective one."""
    if not isinstance(named.camera.projection, Pinhole):
        refuse(named, title, f"is {named.camera.projection.name}")


def require_shared(cameras: Sequence[NamedCamera], title: str) -> None:
    """Raise ValueError if the cameras differ in more than their poses, where a format holds intrinsics once."""
    first = cameras[0].camera
    for named in cameras[1:]:
        same = (named.camera.width, named.camera.height) == (first.width, first.height)
        if not same or not torch.allclose(named.camera.K, first.K, rtol=1e-12, atol=0):
            refuse(named, title, f"has other intrinsics than that of {cameras[0].name}")


def seen_by_none(label: str, views: int, points: int) -> Bool[Tensor, "v m"]:
    """Return which view sees which point, filled with False.

    Raises:
        ValueError: if there are too many points for that.
    """
    if views * points > 1 << 31:
        raise ValueError(f"{label}: expected at most {(1 << 31) // views} points for {views} views, found {points}")
    return torch.zeros(views, points, dtype=torch.bool)


def sort_by_name(cameras: Sequence[NamedCamera]) -> list[NamedCamera]:
    """Return cameras in the order in which `files.list_pictures` finds their pictures."""
    by_path = {Path(named.name): named for named in cameras}
    return [by_path[path] for path in sort_by_number(by_path)]


def refuse(named: NamedCamera, title: str, reason: str) -> NoReturn:
    """Raise ValueError: a format cannot hold a camera.

    Raises:
        ValueError: always.
    """
    raise ValueError(f"{title}: the camera of {named.name} {reason}, which the format cannot hold")


def _check_rotation(label: str, pose: Float[Tensor, "4 4"]) -> None:
    """Raise ValueError if a pose is not finite or no rotation."""
    if not pose.isfinite().all():
        raise ValueError(f"{label}: the pose holds a number that is not finite; there is no camera for this picture")
    check_rotation(pose[:3, :3], f"{label}: expected a rotation without mirror image")

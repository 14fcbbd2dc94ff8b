"""Objects on a turntable in front of a camera that stands still: a camera of its own for every picture.

The pictures are in the order in which they were taken, and the object turned by the same angle from each to the next,
anticlockwise seen from above where the angle is positive. It turns about the axis of the data's frame, x, y or z, that
points upwards in the picture. The axis passes through the origin where the camera sees that in its picture, as it does
where the origin was calibrated on the turntable; otherwise through the point at distance 1 along the optical axis, and
the scale of the scene is arbitrary.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from warpdvr.cameras.camera import Camera


def stand_in_one_place(cameras: Sequence[Camera]) -> bool:
    """Return whether two or more cameras all have the same pose."""
    first = cameras[0].pose
    return len(cameras) > 1 and all(torch.allclose(c.pose, first, rtol=1e-9, atol=1e-9) for c in cameras[1:])


def place_cameras(
    folder: Path, cameras: Sequence[Camera], turntable: float | None, numbers: Sequence[int]
) -> tuple[Camera, ...]:
    """Return the cameras as they stand around the object.

    Args:
        folder: the data set, for messages.
        cameras: of the pictures in the order in which they were taken, in the data's own frame.
        turntable: angle from each picture to the next [degree]; None: the object stands still.
        numbers: of the pictures in the order in which they were taken; some may have been left out.

    Raises:
        ValueError: if all cameras stand in one place and no angle is given, or one is given and they do not, or if it
            leads nowhere: 0, 360, or not finite.
    """
    if turntable is None:
        if stand_in_one_place(cameras):
            raise ValueError(
                f"{folder}: all cameras stand in one place; if the object was turned in front of one camera, give "
                "--turntable DEGREES, how far it turned from each picture to the next, anticlockwise seen from above "
                f"(one turn in {len(cameras)} pictures: {360 / len(cameras):.6g}), or cameras of their own for the "
                "pictures"
            )
        return tuple(cameras)
    if not math.isfinite(turntable) or math.remainder(turntable, 360) == 0:
        raise ValueError(
            f"turntable must be an angle between pictures, not 0 or a full turn [degree], got {turntable:g}"
        )
    if not stand_in_one_place(cameras):
        raise ValueError(
            f"{folder}: --turntable is for pictures of one camera that stands still, but the poses of these cameras "
            "differ; leave it out"
        )
    axis, point = turning_axis(cameras[0])
    return tuple(_turned(c, axis, point, -math.radians(turntable) * i) for i, c in zip(numbers, cameras, strict=True))


def describe_turning(turntable: float | None) -> str:
    """Describe how the object turned; empty if it stood still."""
    return "" if turntable is None else f" The object turned by {turntable:g} degrees from picture to picture."


def turning_axis(camera: Camera) -> tuple[Float[Tensor, "3"], Float[Tensor, "3"]]:
    """Return the unit direction of the axis of the turntable, upwards, and a point on it, in the data's own frame."""
    up = -camera.pose[:3, 1]
    largest = int(up.abs().argmax())
    axis = torch.zeros(3).to(up)
    axis[largest] = up[largest].sign()
    origin = torch.zeros(1, 3).to(up)
    (pixel,), (z,) = camera.project(origin)
    inside = bool((pixel > 0).all() and pixel[0] < camera.width and pixel[1] < camera.height)
    if z > 1e-6 and inside:
        return axis, origin[0]
    return axis, camera.centre + camera.pose[:3, 2]


def _turned(camera: Camera, axis: Float[Tensor, "3"], point: Float[Tensor, "3"], angle: float) -> Camera:
    """Return a camera turned about an axis through a point by an angle [radian]."""
    x, y, z = axis.tolist()
    cross = torch.tensor([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]]).to(axis)
    turn = torch.eye(4).to(axis)
    turn[:3, :3] += math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross
    turn[:3, 3] = point - turn[:3, :3] @ point
    return replace(camera, pose=turn @ camera.pose)

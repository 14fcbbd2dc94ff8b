"""Place cameras on a sphere or on a circle around an object, and estimate their up direction."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from warpdvr.cameras.camera import Camera


def fibonacci_sphere(n: int, *, max_height: float = 1.0, phase: float = 0.0) -> Float[Tensor, "n 3"]:
    """Return n evenly spread unit directions, from top to bottom around the y axis, float64.

    Each lies a golden angle further around than the one before; a lattice as in Gonzalez, "Measurement of Areas on a
    Sphere Using Fibonacci and Latitude-Longitude Lattices" (2010).

    Args:
        max_height: the directions stay below this y, and above its negative.
        phase: added to the angle of each about the axis [radian]; the first lies at half a golden angle.
    """
    i = torch.arange(n, dtype=torch.float64) + 0.5
    height, turn = max_height * (1 - 2 * i / n), i * math.pi * (3 - 5**0.5) + phase
    ring = (1 - height**2).sqrt()
    return torch.stack([ring * turn.cos(), height, ring * turn.sin()], 1)


def turntable(
    frames: int,
    *,
    up: Sequence[float],
    size: int = 400,
    fov: float = 40.0,
    distance: float = 3.0,
    elevation: float = 20.0,
    front: Sequence[float] | None = None,
) -> list[Camera]:
    """Return cameras evenly spread on a circle around the origin.

    Args:
        frames: number of cameras.
        up: the direction that points upwards in the pictures, shape (3,).
        size: width and height [pixel].
        fov: field of view [degree].
        distance: from the origin [scene unit].
        elevation: above the horizon [degree].
        front: the direction of the first camera, projected onto the horizon, shape (3,); by default half-way between
            the usual front (+z where y is up, -y where z is up) and the right.
    """
    for name, number in (("frames", frames), ("size", size)):
        if number < 1:
            raise ValueError(f"turntable: {name} must be positive, got {number}")
    z = torch.nn.functional.normalize(torch.as_tensor(up, dtype=torch.float64), dim=0)
    x = torch.as_tensor(front or (0.0, 0.0, 0.0), dtype=torch.float64)
    x = x - (x @ z) * z
    if x.norm() < 1e-3:
        level = torch.linalg.cross(torch.eye(3, dtype=torch.float64)[int(z.abs().argmin())], z)
        x = level + 0.6 * torch.linalg.cross(z, level)
    x = x / x.norm()
    y = torch.linalg.cross(z, x)
    rise = math.radians(elevation)
    turn = [2 * math.pi * i / frames for i in range(frames)]
    eyes = [distance * (math.cos(rise) * (math.cos(a) * x + math.sin(a) * y) + math.sin(rise) * z) for a in turn]
    return [Camera.look_at(eye, up=z, fov=fov, width=size, height=size) for eye in eyes]


def turntable_around(
    cameras: Sequence[Camera], frames: int, *, up: Sequence[float], size: int, margin: float = 1.02, radius: float = 1.0
) -> list[Camera]:
    """Return a turntable that starts on the side of given cameras and shows a whole ball around the origin.

    Args:
        cameras: the first camera stands where they are on average, unless they stand all around.
        frames: number of cameras.
        up: the direction that points upwards in the pictures, shape (3,).
        size: width and height [pixel].
        margin: radius that is shown, as a factor of the ball's.
        radius: of the ball, by default the unit sphere [scene unit].
    """
    centre = torch.stack([camera.centre for camera in cameras])
    distance = max(float(centre.norm(dim=-1).median()), 1.2 * radius)
    mean = centre.mean(0)
    front = mean.tolist() if mean.norm() > 0.3 * distance else None  # None: photographed from all sides
    fov = math.degrees(2 * math.asin(min(1.0, margin * radius / distance)))
    return turntable(frames, up=up, size=size, fov=fov, distance=distance, front=front)


def estimate_up(poses: Float[Tensor, "v 4 4"]) -> tuple[float, float, float]:
    """Estimate the up direction from camera poses: the average of the up directions of their images.

    Where these disagree (cameras rolled by half a turn), it is the normal of the plane through the camera centres.
    The result is snapped to an axis that is within 30 degrees.
    """
    mean = -poses[:, :3, 1].double().mean(0)
    if mean.norm() < 0.3:
        centre = poses[:, :3, 3].double()
        mean = torch.linalg.svd(centre - centre.mean(0)).Vh[-1]
    up = mean / mean.norm()
    axis = int(up.abs().argmax())
    if up[axis].abs() > math.cos(math.radians(30)):
        up = torch.zeros(3, dtype=torch.float64).index_fill(0, torch.tensor([axis]), float(up[axis].sign()))
    return float(up[0]), float(up[1]), float(up[2])

"""A camera that goes around the object once."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import PIL.Image
import torch
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.rendering.render import SMOOTH, Image, gridded_intersect, render
from warpdvr.runtime.files import replacing


def cameras(
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
        frames: how many.
        up: the direction that points upwards in the pictures, shape (3,).
        size: width and height [pixel].
        fov: field of view [degree].
        distance: from the origin [scene unit].
        elevation: above the horizon [degree].
        front: the direction in which the first camera stands, as far as it is level, shape (3,); if not given, half-way
            between the usual front (+z where y is up, -y where z is up) and the right.
    """
    for name, number in (("frames", frames), ("size", size)):
        if number < 1:
            raise ValueError(f"turntable: {name} must be positive, got {number}")
    z = torch.nn.functional.normalize(torch.as_tensor(up, dtype=torch.float64), dim=0)
    x = torch.as_tensor(front or (0.0, 0.0, 0.0), dtype=torch.float64)
    x = x - (x @ z) * z
    if x.norm() < 1e-3:
        ahead = torch.linalg.cross(torch.eye(3, dtype=torch.float64)[int(z.abs().argmin())], z)
        x = ahead + 0.6 * torch.linalg.cross(z, ahead)
    x = x / x.norm()
    y = torch.linalg.cross(z, x)
    rise = math.radians(elevation)
    turn = [2 * math.pi * i / frames for i in range(frames)]
    eyes = [distance * (math.cos(rise) * (math.cos(a) * x + math.sin(a) * y) + math.sin(rise) * z) for a in turn]
    return [Camera.look_at(eye, up=z, fov=fov, width=size, height=size) for eye in eyes]


@torch.no_grad()
def turn(field: Any, path: Sequence[Camera]) -> Iterator[Image]:
    """Render one camera after the other, with smooth edges of colours; the field must stay as it is."""
    solver, _ = gridded_intersect(field)
    for camera in path:
        yield render(field, camera, intersect=solver, antialias=SMOOTH)


def animate(pictures: Sequence[Any], path: Path, *, seconds: float = 4.0) -> None:
    """Write 8-bit pictures (h, w, 3) as an animated file that repeats; .gif, .webp or .png by suffix."""
    if path.suffix not in (".gif", ".webp", ".png"):
        raise ValueError(f"{path}: an animation is written as .gif, .webp or .png")
    first, *rest = (PIL.Image.fromarray(picture) for picture in pictures)
    pause = int(1000 * seconds / len(pictures))
    with replacing(path) as unfinished:
        first.save(unfinished, save_all=True, append_images=rest, duration=pause, loop=0)


def upwards(poses: Tensor) -> tuple[float, float, float]:
    """Guess which direction is up from camera poses (n, 4, 4): what their images have at the top, on average.

    Where the images disagree (cameras rolled by half a turn), the normal of the plane that the camera centres lie near.
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

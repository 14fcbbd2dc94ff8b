"""A first picture: build a shape from primitives, place a camera, render.

An image holds more than colour: depth along the camera's axis, normals, the mask, and a status for every pixel. Written
is one picture of three: the shape in grey clay, its normals, and its depth (near is bright).
"""

from pathlib import Path

import numpy as np
import PIL.Image
import torch

import warpdvr


def snowman() -> warpdvr.Field:
    """Return three balls, melted into one another, on a round base."""
    balls = [warpdvr.make("sphere", radius=r, center=(0.0, 0.0, z)) for r, z in ((0.42, -0.35), (0.3, 0.2), (0.2, 0.6))]
    base = warpdvr.make("torus", major=0.5, minor=0.08)
    return warpdvr.make("smooth-union", parts=[*balls, warpdvr.make("translate", part=base, offset=(0, 0, -0.6))])


def main(out: Path, size: int = 200) -> warpdvr.Image:
    """Write the picture to `out` and return the image behind it."""
    camera = warpdvr.Camera.look_at(eye=(1.6, -2.0, 1.0), fov=40, width=size, height=size)
    with torch.no_grad():  # a picture only: nothing is recorded for gradients
        image = warpdvr.render(snowman(), camera, antialias=3)
    shown = [image.picture("rgb"), image.picture("normal"), np.stack([image.picture("depth")] * 3, -1)]
    PIL.Image.fromarray(np.concatenate(shown, axis=1)).save(out)
    return image


if __name__ == "__main__":
    main(Path("first_picture.png"))

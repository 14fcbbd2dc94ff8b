"""Your own field: a class with `value`, and `color` if it has colours.

A field is negative inside, zero on the surface and positive outside; nothing else is required. This one is a gyroid, a
surface that divides space into two equal labyrinths, thickened to a shell and cut to a ball. It declares no Lipschitz
bound, so it is searched with dense samples. Written is the shell in its own colours beside its normals.
"""

from pathlib import Path

import numpy as np
import PIL.Image
import torch
from torch import Tensor

import warpdvr
from warpdvr.testing import check_field


class Gyroid(warpdvr.Field):
    """A gyroid shell of a given frequency and thickness, cut to a ball of radius 0.9."""

    def __init__(self, frequency: float = 7.0, thickness: float = 0.04):
        super().__init__(bounds=1.0)
        self.frequency = torch.nn.Parameter(torch.tensor(frequency))
        self.thickness = torch.nn.Parameter(torch.tensor(thickness))

    def value(self, x: Tensor) -> Tensor:
        s, c = torch.sin(self.frequency * x), torch.cos(self.frequency * x)
        shell = (s * c.roll(1, -1)).sum(-1).abs() / 10 - self.thickness
        return torch.maximum(shell, x.norm(dim=-1) - 0.9)

    def color(self, x: Tensor, normal: Tensor, direction: Tensor, feature: Tensor | None) -> Tensor:
        facing = (normal * direction).sum(-1, keepdim=True).abs()
        return (0.3 + 0.7 * facing) * (0.55 + 0.4 * x)  # brighter where the surface faces the camera


def main(out: Path, size: int = 200) -> warpdvr.Image:
    """Write the picture to `out` and return the image behind it."""
    field = Gyroid()
    check_field(field)  # one sentence about the first thing that is wrong, if there is any
    camera = warpdvr.Camera.look_at(eye=(2.2, -1.8, 1.4), fov=36, width=size, height=size)
    with torch.no_grad():
        image = warpdvr.render(field, camera)
    PIL.Image.fromarray(np.concatenate([image.picture("rgb"), image.picture("normal")], axis=1)).save(out)
    return image


if __name__ == "__main__":
    main(Path("own_field.png"))

"""Refine cameras: photographs of a known shape, taken by cameras that are known only roughly.

Four pictures of a coloured shape are taken, their cameras are then turned and shifted, and refined by comparing
colours and outlines. Written is, for each view, the outline of the shape over the photograph: from the camera as it was
given (above) and as it was refined (below).
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from torch import Tensor

import warpdvr
from warpdvr.cameras.alignment import CameraErrors, camera_errors
from warpdvr.cameras.pose import perturb
from warpdvr.fitting.pose_refinement import refine


class Painted(warpdvr.Field):
    """Three balls in a row and a box, in colours that change from place to place."""

    lipschitz = 1.0

    def __init__(self) -> None:
        super().__init__(bounds=1.0)
        balls = [warpdvr.make("sphere", radius=r, center=(x, 0.0, 0.1)) for r, x in ((0.35, -0.4), (0.25, 0.3))]
        self.shape = warpdvr.make(
            "union", parts=[*balls, warpdvr.make("box", size=(1.3, 0.5, 0.3), center=(0, 0, -0.3))]
        )

    def value(self, x: Tensor) -> Tensor:
        return self.shape.value(x)

    def color(self, x: Tensor, normal: Tensor, direction: Tensor, feature: Tensor | None) -> Tensor:
        return 0.5 + 0.4 * torch.sin(6 * x + torch.tensor([0.0, 1.0, 2.0]))


def photograph(field: warpdvr.Field, cameras: list[warpdvr.Camera]) -> warpdvr.Views:
    """Return pictures of a field by these cameras, with masks."""
    with torch.no_grad():
        images = [warpdvr.render(field, camera) for camera in cameras]
    return warpdvr.Views(
        images=tuple(torch.from_numpy(image.picture()) for image in images),
        masks=tuple(image.mask for image in images),
        cameras=tuple(cameras),
        names=tuple(f"view_{i}" for i in range(len(cameras))),
        train=tuple(range(len(cameras))),
        test=(),
        transform=warpdvr.SceneTransform.identity(),
        summary="Rendered.",
    )


def outlined(picture: Tensor, mask: Tensor) -> Tensor:
    """Return a picture (h, w, 3), paler, with the outline of a mask (h, w) in red."""
    near = torch.nn.functional.max_pool2d(mask.float()[None], 3, 1, 1)[0] > 0
    pale = (picture.float() * 0.5 + 127).to(torch.uint8)
    return torch.where((near & ~mask)[..., None], torch.tensor([220, 0, 0], dtype=torch.uint8), pale)


def main(out: Path, size: int = 128) -> tuple[CameraErrors, CameraErrors]:
    """Write the picture to `out` and return the errors of the cameras before and after."""
    field = Painted()
    eyes = [(2.2, -1.5, 1.2), (-0.8, -2.4, 1.0), (-2.0, 1.6, 0.8), (1.4, 2.2, 1.5)]
    true = [warpdvr.Camera.look_at(eye, fov=40, width=size, height=size) for eye in eyes]
    views = photograph(field, true)

    twist = 0.06 * torch.randn(len(true), 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    rough = perturb(torch.stack([camera.pose for camera in true]), twist)
    given = tuple(replace(camera, pose=pose) for camera, pose in zip(true, rough, strict=True))
    refined = refine(field, replace(views, cameras=given))

    rows = []
    for cameras in (given, refined):
        with torch.no_grad():
            masks = [warpdvr.render(field, camera).mask for camera in cameras]
        rows.append(torch.cat([outlined(*pair) for pair in zip(views.images, masks, strict=True)], dim=1))
    PIL.Image.fromarray(np.asarray(torch.cat(rows))).save(out)
    return camera_errors(given, true, aligned=False), camera_errors(refined, true, aligned=False)


if __name__ == "__main__":
    for errors in main(Path("refine_cameras.png")):
        print(errors)

"""One photograph at sizes from coarse to fine, for the refinement of its camera."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.projection import Projection
from warpdvr.cameras.rays import Rays, pixel_centres
from warpdvr.datasets.morphology import dilate

COARSEST = 25
"""Longer side of the coarsest picture [pixel]; each next one is twice as large."""

BLUR, FINEST_BLUR = 1.0, 0.5
"""Standard deviation of the blur of masks [pixel of each picture]. The finest picture is used twice, the second time
with the smaller blur, because a blur moves curved outlines a little."""

MAX_PIXELS = 5000
"""Largest number of pixels of a picture that are compared: two thirds at the outline, the rest anywhere."""


@dataclass(frozen=True)
class Level:
    """The pixels of a picture, at one size, that are compared."""

    K: Float[Tensor, "3 3"]
    """Intrinsic matrix for pictures of this size [pixel]."""
    projection: Projection
    """The camera model."""
    pixel: Float[Tensor, "n 2"]
    """Their positions [pixel]."""
    color: Float[Tensor, "n 3"]
    """sRGB in [0, 1]."""
    cover: Float[Tensor, " n"]
    """Part of the pixel that the object covers, blurred; NaN where it is unknown."""
    depth: Float[Tensor, " n"]
    """z-depth along the camera's forward axis; NaN where it is unknown [scene unit]."""
    blur: float
    """Standard deviation of the profile of a straight outline in `cover` [pixel]."""

    def rays(self, pose: Float[Tensor, "4 4"]) -> Rays:
        """Return the rays of a pose."""
        view = torch.zeros(len(self.pixel), dtype=torch.int32, device=self.pixel.device)
        K = self.K[None].to(self.pixel.device, pose.dtype)
        return self.projection.rays(K, pose[None].to(self.pixel.device), view, self.pixel)

    def pixel_size(self, z: float) -> float:
        """Return the width of a pixel at depth `z` [scene unit]."""
        return float(self.projection.pixel_size(self.K, z)[0])


def pyramid(
    camera: Camera,
    image: UInt8[Tensor, "h w 3"],
    mask: Bool[Tensor, "h w"] | None,
    depth: Float[Tensor, "h w"] | None,
    longest: int,
    device: torch.device | str,
) -> list[Level]:
    """Return a photograph at sizes from `COARSEST` up to `longest` or its own size [pixel].

    Args:
        camera: its camera.
        image: the photograph.
        mask: True on the object, if the view has a mask.
        depth: NaN where it is missing, if the view has a depth map.
        longest: the longer side of the finest picture, at most [pixel].
        device: where the pixels are to be.
    """
    side = max(camera.width, camera.height)
    factor = max(1, math.ceil(side / longest))
    factors = [factor]
    while side / (2 * factors[-1]) >= COARSEST:
        factors.append(2 * factors[-1])
    planes = [image.float() / 255]
    for plane in (mask, depth):
        planes.append((torch.full(image.shape[:2], torch.nan) if plane is None else plane.float())[..., None])
    stack = torch.cat(planes, -1).to(device)
    return [*(_level(camera, stack, k, BLUR) for k in reversed(factors)), _level(camera, stack, factor, FINEST_BLUR)]


def _level(camera: Camera, stack: Float[Tensor, "h w 5"], factor: int, blur: float) -> Level:
    """Return the picture of blocks of `factor` x `factor` pixels; the remainder at the right and the bottom is
    dropped."""
    small = torch.nn.functional.avg_pool2d(stack.permute(2, 0, 1)[None], factor)[0]
    height, width = small.shape[1:]
    K = camera.K.clone()
    K[:2] /= factor
    cover = _blurred(small[3], blur)
    index = _choose(cover)
    flat = small.view(5, -1)[:, index]
    pixel = pixel_centres(width, height, stack.device)[index]
    return Level(
        K,
        camera.projection.to(stack.device),
        pixel,
        flat[:3].T,
        cover.reshape(-1)[index],
        flat[4],
        math.sqrt(1 / 12 + blur**2),
    )


def _blurred(cover: Float[Tensor, "h w"], blur: float) -> Float[Tensor, "h w"]:
    """Return a mask blurred by a Gaussian; pixels at the border are repeated outwards."""
    if blur == 0:
        return cover
    radius = min(math.ceil(3 * blur), min(cover.shape) - 1)
    x = torch.arange(-radius, radius + 1, device=cover.device)
    bell = torch.exp(-0.5 * (x / blur).square())
    bell = bell / bell.sum()
    padded = torch.nn.functional.pad(cover[None, None], (radius,) * 4, mode="replicate")
    across = torch.nn.functional.conv2d(padded, bell.view(1, 1, 1, -1))
    return torch.nn.functional.conv2d(across, bell.view(1, 1, -1, 1))[0, 0]


def _choose(cover: Float[Tensor, "h w"]) -> Int[Tensor, " n"]:
    """Return the indices of pixels to compare, the same in every call: most at the outline, the rest anywhere."""
    n = cover.numel()
    if n <= MAX_PIXELS:
        return torch.arange(n, device=cover.device)
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(n, generator=generator).to(cover.device)
    edge = (dilate(cover > 1e-3, 1) & dilate(1 - cover > 1e-3, 1)).reshape(-1)[order]
    return torch.cat([order[edge][: 2 * MAX_PIXELS // 3], order[~edge][: MAX_PIXELS // 3]]).sort().values

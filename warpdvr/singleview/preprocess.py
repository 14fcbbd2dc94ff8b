"""Prepare pictures for the encoder and the refinement: square, cut out, over white."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from warpdvr.datasets.decode import QUARTER_TURNS, read_header
from warpdvr.datasets.images import read_picture
from warpdvr.datasets.morphology import dilate
from warpdvr.datasets.views import Views

SIZE = 64
"""Width and height of the pictures that the encoder sees [pixel]."""

FINE = 128
"""Width and height of the pictures that a shape is fitted to [pixel]."""

LARGEST = 4096
"""Larger pictures are scaled down to this width and height before they are squared [pixel]."""

WHITE = 250 / 255
"""Pixels at least this bright in all channels, and connected to the border, are taken for the background."""

Coverage = UInt8[Tensor, "h w"] | Bool[Tensor, "h w"]
"""Alpha from 0 to 255, or a mask."""


@dataclass(frozen=True)
class InputPicture:
    """A picture of one object, in the middle of a square."""

    small: Float[Tensor, "1 3 size size"]
    """Over white, as the encoder sees it, in [0, 1]; of `SIZE` x `SIZE` pixels."""
    image: Float[Tensor, "3 fine fine"]
    """Over white, in [0, 1]; of `FINE` x `FINE` pixels."""
    mask: Bool[Tensor, "fine fine"]
    """True on the object."""

    def to(self, device: torch.device | str) -> "InputPicture":
        """Return the picture on a device."""
        return InputPicture(self.small.to(device), self.image.to(device), self.mask.to(device))


def input_picture(image: UInt8[Tensor, "h w 3"], alpha: Coverage | None) -> InputPicture:
    """Return a picture of straight sRGB colours, cut out and squared.

    Args:
        image: the picture.
        alpha: where the object is; None: everywhere but in the white around it.
    """
    coverage = torch.ones_like(image[..., 0], dtype=torch.bool) if alpha is None else alpha
    fine = square_picture(image, coverage, FINE)
    mask = ~_background(fine) if alpha is None else square_mask(alpha)
    return InputPicture(square_picture(image, coverage)[None], fine, mask)


def read_input_picture(path: Path) -> InputPicture:
    """Read a picture of any size, with an alpha channel or white behind the object; EXIF data turn it upright."""
    header = read_header(path)
    sides = header.size[::-1] if header.orientation in QUARTER_TURNS else header.size
    factor = LARGEST / max(sides)
    size = None if factor >= 1 else (max(1, int(sides[0] * factor)), max(1, int(sides[1] * factor)))
    return input_picture(*read_picture(path, upright=True, size=size))


def first_picture(views: Views) -> InputPicture:
    """Return the first picture of an object that is not held out."""
    i = views.train[0]
    return input_picture(views.images[i], views.masks[i])


def square_picture(image: UInt8[Tensor, "h w 3"], alpha: Coverage, size: int = SIZE) -> Float[Tensor, "3 size size"]:
    """Return an image over white, in the middle of a square, in [0, 1].

    Args:
        image: straight sRGB colours.
        alpha: where the object is.
        size: width and height of the square [pixel].
    """
    coverage = _coverage(alpha)[..., None]
    over = (coverage * image.float() / 255 + (1 - coverage)).permute(2, 0, 1)
    return _square(over, size, 1.0)


def jitter(
    pictures: UInt8[Tensor, "b 3 h w"], generator: torch.Generator, *, zoom: float, tint: float, mirrored: bool
) -> Float[Tensor, "b 3 h w"]:
    """Return pictures with small random changes, in [0, 1].

    Args:
        pictures: objects over white.
        generator: source of the random numbers.
        zoom: they are enlarged or shrunk by up to this share, and shifted by up to half of it.
        tint: their distance to white changes by up to this share, and that of each channel by up to half of it.
        mirrored: whether half of them are mirrored, left to right.
    """
    chance = 2 * torch.rand(len(pictures), 8, generator=generator).to(pictures.device) - 1
    frame = torch.zeros(len(pictures), 2, 3, device=pictures.device)
    frame[:, 0, 0] = frame[:, 1, 1] = 1 + zoom * chance[:, 0]
    if mirrored:
        frame[:, 0, 0] *= torch.where(chance[:, 7] < 0, -1.0, 1.0)
    frame[:, :, 2] = 0.5 * zoom * chance[:, 1:3]
    dark = 1 - pictures.float() / 255  # so that white comes in from outside of the picture
    grid = torch.nn.functional.affine_grid(frame, list(dark.shape), align_corners=False)
    dark = torch.nn.functional.grid_sample(dark, grid, align_corners=False)
    gain = 1 + tint * (chance[:, 3:4] + 0.5 * chance[:, 4:7])
    return (1 - gain[..., None, None] * dark).clamp(0, 1)


def square_mask(alpha: Coverage) -> Bool[Tensor, "fine fine"]:
    """Return where the object is, in the middle of a square of `FINE` x `FINE` pixels."""
    return _square(_coverage(alpha)[None], FINE, 0.0)[0] > 0.5


def square_intrinsics(K: Float[Tensor, "3 3"], width: int, height: int) -> Float[Tensor, "3 3"]:
    """Return the intrinsics of a picture when it is in the middle of a square of width 1."""
    side = max(width, height)
    shifted = K.clone()
    shifted[0, 2] += (side - width) // 2
    shifted[1, 2] += (side - height) // 2
    return torch.tensor([[1 / side], [1 / side], [1.0]]) * shifted


def _coverage(alpha: Coverage) -> Float[Tensor, "h w"]:
    """Return the share of each pixel that the object covers."""
    return alpha.float() / (1 if alpha.dtype == torch.bool else 255)


def _square(channels: Float[Tensor, "c h w"], size: int, padding: float) -> Float[Tensor, "c size size"]:
    """Return an image in the middle of a square, with `padding` around it."""
    height, width = channels.shape[1:]
    side = max(height, width)
    x, y = (side - width) // 2, (side - height) // 2
    square = torch.nn.functional.pad(channels, (x, side - width - x, y, side - height - y), value=padding)
    if side == size:
        return square
    return torch.nn.functional.interpolate(square[None], size=(size, size), mode="bilinear", antialias=True)[0]


def _background(image: Float[Tensor, "3 s s"]) -> Bool[Tensor, "s s"]:
    """Return the white part of an image that is connected to its border."""
    white = (image >= WHITE).all(0)
    region = torch.nn.functional.pad(torch.zeros_like(white)[1:-1, 1:-1], (1, 1, 1, 1), value=True) & white
    while True:
        grown = dilate(region, 1) & white
        if torch.equal(grown, region):
            return region
        region = grown

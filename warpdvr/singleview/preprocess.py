"""Turns a picture into what the encoder and the refinement take: square, cut out, over white."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from warpdvr.datasets.images import read_picture
from warpdvr.datasets.morphology import dilate
from warpdvr.datasets.views import Views

SIZE = 64
"""Width and height of the pictures that the encoder sees [pixel]."""

FINE = 128
"""Width and height of those that a shape is fitted to [pixel]."""

WHITE = 250 / 255
"""Pixels at least this bright in all channels, and connected to the border, are taken for the background."""


@dataclass(frozen=True)
class InputPicture:
    """A picture of one object, in the middle of a square."""

    small: Tensor
    """Over white, as the encoder sees it, (1, 3, SIZE, SIZE), in [0, 1]."""
    image: Tensor
    """Over white, (3, FINE, FINE), in [0, 1]."""
    mask: Tensor
    """Where the object is, (FINE, FINE), bool."""


def input_picture(image: Tensor, alpha: Tensor | None) -> InputPicture:
    """Return a picture (h, w, 3), uint8, of straight sRGB colours, cut out and squared.

    Args:
        image: the picture.
        alpha: coverage (h, w), uint8, or a mask, bool; None: what is not white is the object.
    """
    coverage = torch.ones_like(image[..., 0], dtype=torch.bool) if alpha is None else alpha
    fine = square_picture(image, coverage, FINE)
    mask = ~_background(fine) if alpha is None else square_mask(alpha)
    return InputPicture(square_picture(image, coverage)[None], fine, mask)


def read_input_picture(path: Path) -> InputPicture:
    """Read a picture of any size, with an alpha channel or with white behind the object; EXIF data turn it upright."""
    return input_picture(*read_picture(path, upright=True))


def first_picture(views: Views) -> InputPicture:
    """Return the first picture of an object that is not held out."""
    i = views.train[0]
    return input_picture(views.images[i], views.masks[i])


def square_picture(image: Tensor, alpha: Tensor, size: int = SIZE) -> Tensor:
    """Return an image (h, w, 3) uint8 over white, in the middle of a square, shape (3, size, size) in [0, 1].

    Args:
        image: straight sRGB colours.
        alpha: coverage (h, w), uint8, or a mask, bool.
        size: of the square [pixel].
    """
    coverage = _coverage(alpha)[..., None]
    over = (coverage * image.float() / 255 + (1 - coverage)).permute(2, 0, 1)
    return _square(over, size, 1.0)


def jitter(pictures: Tensor, generator: torch.Generator, *, zoom: float, tint: float, mirrored: bool) -> Tensor:
    """Return pictures (b, 3, h, w), uint8, over white, changed a little by chance, in [0, 1].

    Args:
        pictures: of objects over white.
        generator: of the random numbers.
        zoom: they get larger or smaller by up to this share, and shift by half of it.
        tint: their distance to white changes by up to this share, and that of each channel by half of it.
        mirrored: whether half of them are mirrored, left for right.
    """
    chance = 2 * torch.rand(len(pictures), 8, generator=generator) - 1
    frame = torch.zeros(len(pictures), 2, 3)
    frame[:, 0, 0] = frame[:, 1, 1] = 1 + zoom * chance[:, 0]
    if mirrored:
        frame[:, 0, 0] *= torch.where(chance[:, 7] < 0, -1.0, 1.0)
    frame[:, :, 2] = 0.5 * zoom * chance[:, 1:3]
    dark = 1 - pictures.float() / 255  # so that what comes in from outside of the picture is white
    grid = torch.nn.functional.affine_grid(frame, list(dark.shape), align_corners=False)
    dark = torch.nn.functional.grid_sample(dark, grid, align_corners=False)
    gain = 1 + tint * (chance[:, 3:4] + 0.5 * chance[:, 4:7])
    return (1 - gain[..., None, None] * dark).clamp(0, 1)


def square_mask(alpha: Tensor) -> Tensor:
    """Return where a coverage or mask (h, w) has the object, in the middle of a square (FINE, FINE), bool."""
    return _square(_coverage(alpha)[None], FINE, 0.0)[0] > 0.5


def square_intrinsics(K: Tensor, width: int, height: int) -> Tensor:
    """Return the intrinsics (3, 3) of a picture when it is in the middle of a square of width 1."""
    side = max(width, height)
    moved = K.clone()
    moved[0, 2] += (side - width) // 2
    moved[1, 2] += (side - height) // 2
    return torch.tensor([[1 / side], [1 / side], [1.0]]) * moved


def _coverage(alpha: Tensor) -> Tensor:
    return alpha.float() / (1 if alpha.dtype == torch.bool else 255)


def _square(channels: Tensor, size: int, padding: float) -> Tensor:
    """Return (c, h, w) in the middle of a square, (c, size, size), with `padding` where there was nothing."""
    height, width = channels.shape[1:]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = torch.nn.functional.pad(channels, (left, side - width - left, top, side - height - top), value=padding)
    if side == size:
        return square
    return torch.nn.functional.interpolate(square[None], size=(size, size), mode="bilinear", antialias=True)[0]


def _background(image: Tensor) -> Tensor:
    """Return the white part of an image (3, s, s) that is connected to its border, (s, s), bool."""
    white = (image >= WHITE).all(0)
    region = torch.nn.functional.pad(torch.zeros_like(white)[1:-1, 1:-1], (1, 1, 1, 1), value=True) & white
    while True:
        grown = dilate(region, 1) & white
        if torch.equal(grown, region):
            return region
        region = grown

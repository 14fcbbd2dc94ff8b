"""Read photographs and masks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from warpdvr.datasets.decode import Header, bits_of, decode, largest_value, read_header
from warpdvr.datasets.masks import require_object

ALPHA = "alpha (above 127 = object)"
"""Where masks come from that are alpha channels."""


@dataclass(frozen=True)
class Photographs:
    """The photographs of a data set."""

    paths: tuple[Path, ...]
    """The file of each view."""
    images: tuple[UInt8[Tensor, "_ _ 3"], ...]
    """Per view, sRGB colours (h, w, 3)."""
    alphas: tuple[UInt8[Tensor, "_ _"] | None, ...]
    """Per view, the alpha channel (h, w); None if there is none."""

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Per view, width and height [pixel]."""
        return [(image.shape[1], image.shape[0]) for image in self.images]


@dataclass(frozen=True)
class MaskSet:
    """The masks of a data set."""

    masks: tuple[Bool[Tensor, "_ _"] | None, ...]
    """Per view, shape (h, w), True on the object; None for a view without a mask."""
    source: str
    """Where they come from, in words."""

    @classmethod
    def empty(cls, n: int) -> "MaskSet":
        """Return a set without a mask for any of n views."""
        return cls((None,) * n, "nowhere")


def read_photographs(paths: Sequence[Path]) -> Photographs:
    """Read the photographs of a data set, at least one, in their stored order and size.

    Raises:
        ValueError: if a file is missing or cannot be decoded.
    """
    headers = [read_header(path) for path in paths]
    bits = bits_of_set([largest_value(h.path) for h in headers if h.deep])
    images, alphas = zip(*(decode_picture(h.path, bits=bits) for h in headers), strict=True)
    return Photographs(tuple(paths), images, alphas)


def read_picture(
    path: Path, *, upright: bool = False, size: tuple[int, int] | None = None
) -> tuple[UInt8[Tensor, "h w 3"], UInt8[Tensor, "h w"] | None]:
    """Return the sRGB colours of a picture, and its alpha channel or None.

    Args:
        path: the picture.
        upright: rotate it as its EXIF data say. By default the pixels keep their stored order, for which cameras are
            calibrated.
        size: width and height to which it is scaled down [pixel].

    Raises:
        ValueError: if the file is missing or cannot be decoded.
    """
    return decode_picture(path, upright=upright, size=size)


def decode_picture(
    path: Path, *, upright: bool = False, bits: int | None = None, size: tuple[int, int] | None = None
) -> tuple[UInt8[Tensor, "h w 3"], UInt8[Tensor, "h w"] | None]:
    """Return the colours of a picture and its alpha channel or None; the arguments are those of `decode.decode`."""
    array = torch.from_numpy(decode(path, upright=upright, bits=bits, size=size))
    if array.ndim == 2:
        return array[..., None].repeat(1, 1, 3), None
    return (array[..., :3].contiguous(), array[..., 3].clone()) if array.shape[2] == 4 else (array, None)


def bits_of_set(largest: Sequence[int]) -> int | None:
    """Return the bits of pictures of more than 8 bits, by the largest value in each of them; None if there is none."""
    return bits_of(max(largest)) if largest else None


def describe_depth_of_colour(headers: Sequence[Header], bits: int | None) -> str:
    """Describe pictures of more than 8 bits, and of linear floats; empty if there are none."""
    deep, linear = sum(h.deep for h in headers), sum(h.linear for h in headers)
    parts = []
    if deep:
        parts.append(f"{deep} pictures of 16 bits a channel hold {bits} of them, read as 8")
    if linear:
        parts.append(f"{linear} pictures of linear floats, 1 taken for white, read as sRGB")
    return "".join(f" {part[0].upper()}{part[1:]}." for part in parts)


def scaled_size(width: int, height: int, max_pixels: int | None) -> tuple[int, int]:
    """Return the size of a picture that is scaled down to at most `max_pixels` pixels, in equal proportions."""
    if max_pixels is None or width * height <= max_pixels:
        return width, height
    factor = math.sqrt(max_pixels / (width * height))
    return max(1, int(width * factor)), max(1, int(height * factor))


def picture_size(path: Path) -> tuple[int, int] | None:
    """Return the stored width and height of a picture, or None if it cannot be read."""
    try:
        return read_header(path).size
    except ValueError:
        return None


def masks_from_alpha(photographs: Photographs) -> MaskSet | None:
    """Return masks from the alpha channels of the photographs, or None if all of them are opaque.

    Raises:
        ValueError: if a photograph is transparent everywhere.
    """
    if not any(map(is_transparent, photographs.alphas)):
        return None
    pairs = zip(photographs.paths, photographs.alphas, strict=True)
    masks = tuple(None if alpha is None else require_object(alpha > 127, path) for path, alpha in pairs)
    return MaskSet(masks, ALPHA)


def is_transparent(alpha: UInt8[Tensor, "h w"] | None) -> bool:
    """Return whether any pixel is transparent, at least in part."""
    return alpha is not None and int(alpha.min()) < 255

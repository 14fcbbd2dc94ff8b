"""Read photographs and masks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from warpdvr.datasets.files import list_pictures


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
    """Read the photographs of a data set, at least one, as `read_picture` does."""
    images, alphas = zip(*map(read_picture, paths), strict=True)
    return Photographs(tuple(paths), images, alphas)


def read_picture(path: Path, *, upright: bool = False) -> tuple[UInt8[Tensor, "h w 3"], UInt8[Tensor, "h w"] | None]:
    """Return the sRGB colours of a picture, and its alpha channel or None.

    Args:
        path: the picture.
        upright: rotate it as its EXIF data say. By default the pixels keep their stored order, for which cameras are
            calibrated.

    Raises:
        ValueError: if the file is missing or cannot be decoded.
    """
    array = _decode(path, upright)
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, 2)
    alpha = torch.from_numpy(array[..., 3].copy()) if array.shape[2] == 4 else None
    return torch.from_numpy(np.ascontiguousarray(array[..., :3])), alpha


def read_mask(path: Path, image: UInt8[Tensor, "h w 3"]) -> Bool[Tensor, "h w"]:
    """Read a mask, white = object, that must have the size of its image.

    The file may be grey, in colour or have alpha, with values 0 and 255 or 0 and 1.

    Raises:
        ValueError: if the size of the mask differs from that of the image, or the mask is empty.
    """
    array = _decode(path)
    if array.ndim == 3:
        array = _to_grey(array)
    if array.shape != tuple(image.shape[:2]):
        sizes = "mask of {1} x {0}, image of {3} x {2}".format(*array.shape, *image.shape)
        raise ValueError(f"{path}: the mask must have the size of its image, found a {sizes} pixels")
    return _require_object(torch.from_numpy(array > (127 if array.max() > 1 else 0)), path)


def read_masks(paths: Sequence[Path | None], photographs: Photographs, source: str) -> MaskSet:
    """Read the mask of each photograph, None where there is no file; `source` describes where they come from."""
    pairs = zip(paths, photographs.images, strict=True)
    return MaskSet(tuple(None if path is None else read_mask(path, image) for path, image in pairs), source)


def masks_from_alpha(photographs: Photographs) -> MaskSet | None:
    """Return masks from the alpha channels of the photographs, or None if all of them are opaque.

    Raises:
        ValueError: if a photograph is transparent everywhere.
    """
    if not any(alpha is not None and bool((alpha < 255).any()) for alpha in photographs.alphas):
        return None
    pairs = zip(photographs.paths, photographs.alphas, strict=True)
    masks = tuple(None if alpha is None else _require_object(alpha > 127, path) for path, alpha in pairs)
    return MaskSet(masks, "alpha (above 127 = object)")


def match_masks(pictures: Sequence[Path], subfolder: Path, folder: Path) -> list[Path | None]:
    """Return for each picture the mask in `subfolder` that has its name up to the suffix, or None.

    Raises:
        ValueError: if a mask matches no picture in the folders of `pictures`, or no mask matches any of `pictures`.
    """
    masks = {f.stem: f for f in list_pictures(subfolder, folder)}
    used = {f.stem for f in pictures}
    stems = used.union(*({f.stem for f in parent.iterdir()} for parent in {f.parent for f in pictures}))
    unmatched = sorted(masks.keys() - stems) or (sorted(masks) if used.isdisjoint(masks) else [])
    if unmatched:
        raise ValueError(
            f"{subfolder}: the mask {masks[unmatched[0]].name} belongs to no image, expected names such as "
            f"{pictures[0].stem}.png for the mask of {pictures[0].name}"
        )
    return [masks.get(f.stem) for f in pictures]


def _require_object(mask: Bool[Tensor, "h w"], path: Path) -> Bool[Tensor, "h w"]:
    """Return the mask; ValueError if it is empty."""
    if not mask.any():
        raise ValueError(f"{path}: the mask is empty, expected white (or opaque) pixels on the object")
    return mask


def _decode(path: Path, upright: bool = False) -> NDArray[np.uint8]:
    """Return the pixels of a picture as grey (h, w), RGB (h, w, 3) or RGBA (h, w, 4)."""
    if not path.is_file():
        raise ValueError(f"{path}: the picture is missing")
    try:
        with Image.open(path) as stored:
            stored.load()
            image = ImageOps.exif_transpose(stored) if upright else stored
            if image.mode.startswith("I"):  # 16 bits per pixel; Pillow would clip them at 255
                array = np.asarray(image).astype(np.int64)
                return (array >> 8 if array.max() > 255 else array).astype(np.uint8)
            transparent = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
            grey = image.mode in ("1", "L")
            return np.array(image.convert("RGBA" if transparent else "L" if grey else "RGB"))
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: expected a picture, found a file that cannot be decoded ({error})") from error


def _to_grey(array: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert a mask in colour or with alpha to grey: the brightest channel, 0 where it is transparent."""
    grey: NDArray[np.uint8] = array[..., :3].max(2)
    if array.shape[2] == 3:
        return grey
    if not grey.any():  # all black: the shape is in the alpha channel
        return array[..., 3]
    return np.where(array[..., 3] > 127, grey, 0)

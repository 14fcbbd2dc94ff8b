"""Read masks, and find those that belong to pictures."""

import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath

import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from warpdvr.datasets.decode import BAND, QUARTER_TURNS, decode, read_header
from warpdvr.datasets.files import PICTURE_SUFFIXES
from warpdvr.datasets.find import folded, is_clutter
from warpdvr.runtime.files import links_allowed, path_inside

SOFT = 0.01
"""Masks with more than this share of values between a tenth and nine tenths of white are soft."""

IGNORED = "dynamic_mask_"
"""How the names of instant-ngp's masks begin. They mark what is ignored, not the object (NVlabs/instant-ngp,
src/nerf_loader.cu), so they say nothing about its outline."""


def read_mask(path: Path, size: tuple[int, int], scaled: tuple[int, int] | None = None) -> tuple[Tensor, bool]:
    """Read a mask, which must have the size of its picture.

    Of two values the larger is the object, whatever they are: 0 and 255, 0 and 1, or a label. Of more, those above half
    of white are. A mask in colour counts by its brightest channel, one with alpha by both, an all black one by alpha.

    Args:
        path: the mask.
        size: width and height of its picture [pixel]; it is turned as its EXIF data say if that makes it fit.
        scaled: those of the mask that is returned, if the picture is scaled down.

    Returns:
        The mask, shape (h, w), bool, True on the object, and whether it was soft: with many values between.

    Raises:
        ValueError: if it cannot be decoded, has another size, is empty, or holds several labels.
    """
    header = read_header(path)
    turned = header.size != size and header.orientation in QUARTER_TURNS
    array = decode(path, upright=turned)
    if array.ndim == 3:
        array = _to_grey(array)
    if array.shape[::-1] != size:
        sizes = "mask of {1} x {0}, image of {2} x {3}".format(*array.shape, *size)
        raise ValueError(f"{path}: the mask must have the size of its image, found a {sizes} pixels")
    threshold, soft = _threshold(array, path)
    return require_object(scale_mask(torch.from_numpy(array > threshold), scaled), path), soft


def scale_mask(mask: Bool[Tensor, "h w"], size: tuple[int, int] | None) -> Bool[Tensor, "_ _"]:
    """Return a mask of another width and height [pixel]: True where it covers more than half of a pixel's area."""
    if size is None or size == (mask.shape[1], mask.shape[0]):
        return mask
    grey = Image.fromarray(mask.numpy().view(np.uint8) * np.uint8(255))
    return torch.from_numpy(np.asarray(grey.resize(size, Image.Resampling.BOX)) > 127)


def require_object(mask: Bool[Tensor, "h w"], path: Path) -> Bool[Tensor, "h w"]:
    """Return the mask; ValueError if it is empty."""
    if not mask.any():
        raise ValueError(f"{path}: the mask is empty, expected white (or opaque) pixels on the object")
    return mask


def warn_if_inverted(masks: Iterable[Bool[Tensor, "_ _"] | None], folder: Path) -> None:
    """Warn if most masks fill the border of the frame, but not its middle."""
    known = [mask for mask in masks if mask is not None]
    inverted = sum(map(looks_inverted, known))
    if 2 * inverted > len(known):
        warnings.warn(
            f"{folder}: the masks look inverted: in {inverted} of {len(known)} views the object fills the border of "
            "the frame, but not its middle; white is the object, so invert them if it is black in yours",
            stacklevel=2,
        )


def looks_inverted(mask: Bool[Tensor, "h w"]) -> bool:
    """Return whether a mask fills most of the border of the frame, and less than half of its middle third."""
    h, w = mask.shape
    border = torch.cat([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    middle = mask[h // 3 : h - h // 3, w // 3 : w - w // 3]
    return bool(border.float().mean() > 0.8 and middle.float().mean() < 0.5)


def match_masks(
    pictures: Sequence[Path], subfolder: Path, folder: Path, others: Sequence[str] = ()
) -> list[Path | None]:
    """Return for each picture its mask in `subfolder`, or None.

    The mask of `a/x.jpg` is called x, x.jpg, mask_x or x_mask, with any suffix of a picture, and lies in `subfolder` or
    in a folder a in it.

    Args:
        pictures: the pictures.
        subfolder: the folder of the masks.
        folder: the data set.
        others: names of pictures without use whose masks may be there.

    Raises:
        ValueError: if a mask belongs to no picture, or to several.
    """
    masks = _list_masks(subfolder, folder)
    found = [_find_mask(masks, f.relative_to(folder) if f.is_relative_to(folder) else f) for f in pictures]
    beside = (f for parent in {f.parent for f in pictures} for f in parent.iterdir())
    unused = [path for name in others if (path := _find_mask(masks, PurePath(name.replace("\\", "/"))))]
    unused += [path for f in beside if (path := _find_mask(masks, PurePath(f.name)))]
    used = {path for path in found if path}
    unmatched = sorted({*masks.values()} - used - {*unused}) or (sorted(masks.values()) if not used else [])
    if unmatched:
        raise ValueError(
            f"{subfolder}: the mask {unmatched[0].name} belongs to no image, expected names such as "
            f"{pictures[0].stem}.png for the mask of {pictures[0].name}"
        )
    owner: dict[Path, Path] = {}
    for picture, mask in zip(pictures, found, strict=True):
        if mask is not None and owner.setdefault(mask, picture) != picture:
            raise ValueError(
                f"{subfolder}: the mask {mask.name} belongs to {owner[mask]} and to {picture}, expected masks in "
                "folders named like those of the images"
            )
    return found


def masks_beside(pictures: Sequence[Path], folder: Path) -> list[Path | None]:
    """Return for each picture the mask in its own folder, called mask_x, x_mask or x.jpg, or None."""
    found: list[Path | None] = []
    files: dict[Path, dict[str, Path]] = {}
    for picture in pictures:
        home = picture.parent
        if home not in files:
            files[home] = {folded(f.stem): f for f in home.iterdir() if f.suffix.lower() in PICTURE_SUFFIXES}
            _warn_of_ignored([f.name for f in files[home].values()], home)
        stem = folded(picture.stem)
        names = (n for n in _mask_names(stem, folded(picture.name)) if n != stem)
        path = next((files[home][n] for n in names if n in files[home]), None)
        found.append(None if path is None else path_inside(folder, path.relative_to(folder)))
    return found


def _mask_names(stem: str, name: str) -> tuple[str, ...]:
    """Return the stems that the mask of a picture may have."""
    return stem, name, f"mask_{stem}", f"{stem}_mask", f"{stem}-mask", f"{stem}.mask"


def _list_masks(subfolder: Path, folder: Path) -> dict[tuple[str, ...], Path]:
    """Return the pictures in a folder and its folders, by the folded parts of their path without suffix."""
    masks, ignored = {}, []
    for home, _, names in os.walk(subfolder, followlinks=links_allowed()):
        for name in sorted(names):
            path = Path(home, name)
            if path.suffix.lower() not in PICTURE_SUFFIXES or is_clutter(name):
                continue
            if name.startswith(IGNORED):
                ignored.append(name)
                continue
            parts = (*path.relative_to(subfolder).parts[:-1], path.stem)
            masks[tuple(map(folded, parts))] = path_inside(folder, path.relative_to(folder))
    _warn_of_ignored(ignored, subfolder)
    return masks


def _find_mask(masks: dict[tuple[str, ...], Path], picture: PurePath) -> Path | None:
    """Return the mask of a picture: in the folder that shares the longest tail with that of the picture."""
    homes = tuple(map(folded, picture.parts[:-1]))
    for start in range(len(homes) + 1):
        for name in _mask_names(folded(picture.stem), folded(picture.name)):
            if path := masks.get((*homes[start:], name)):
                return path
    return None


def _warn_of_ignored(names: Sequence[str], folder: Path) -> None:
    names = [name for name in names if name.startswith(IGNORED)]
    if names:
        warnings.warn(
            f"{folder}: {len(names)} files such as {names[0]} are not used: they mark what instant-ngp ignores, not "
            "the object; white masks of the object belong into a folder masks",
            stacklevel=2,
        )


def _threshold(array: NDArray[np.uint8], path: Path) -> tuple[int, bool]:
    """Return the value above which a mask shows the object, and whether it is soft."""
    count = np.zeros(256, np.int64)
    for top in range(0, len(array), BAND):
        count += np.bincount(array[top : top + BAND].ravel(), minlength=256)
    values = np.flatnonzero(count)
    if len(values) <= 2:
        return (0 if len(values) == 1 else int(values[0])), False
    if values[-1] <= 127:
        found = ", ".join(map(str, values[:4])) + (", ..." if len(values) > 4 else "")
        raise ValueError(
            f"{path}: expected a mask of two values, or one that is white on the object, found the values {found}; "
            "give the object 255 and all else 0"
        )
    return 127, bool(count[26:230].sum() > SOFT * array.size)


def _to_grey(array: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert a mask in colour or with alpha to grey: the brightest channel, 0 where it is transparent."""
    grey: NDArray[np.uint8] = array[..., 0].copy()
    for channel in (1, 2):
        np.maximum(grey, array[..., channel], out=grey)
    if array.shape[2] == 3:
        return grey
    if not grey.any():  # all black: the shape is in the alpha channel
        return np.ascontiguousarray(array[..., 3])
    grey[array[..., 3] <= 127] = 0
    return grey
